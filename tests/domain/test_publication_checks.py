from dataclasses import replace

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, TensorSpec
from kuber.domain.publication_checks import check_text, check_weights
from kuber.domain.safetensors_header import bfloat16_manifest
from kuber.errors import RequestRejectedError


@pytest.fixture
def check(samples):
    """Check stored weights with this manifest against a draft."""

    def act(stored, **changes):
        artifact = Artifact(digest=Digest.of(b"weights"), size=7)
        check_weights(samples.draft("id-0", artifact, **changes), stored)

    return act


def test_accepts_the_declared_tensors(check, samples):
    check(samples.architecture.manifest)


def test_refuses_other_tensors(check):
    with pytest.raises(RequestRejectedError, match="other tensors"):
        check({"weight": TensorSpec(dtype="F32", shape=(2, 4))})


def test_accepts_float32_weights_all_as_bfloat16_but_not_some(check, samples):
    specs = dict(samples.architecture.manifest)
    first, *_ = (name for name, spec in specs.items() if spec.dtype == "F32")
    check(bfloat16_manifest(specs))
    two = specs | {"second": TensorSpec(dtype="F32", shape=(3,))}
    half_way = two | {first: TensorSpec(dtype="BF16", shape=specs[first].shape)}
    with pytest.raises(RequestRejectedError, match="other tensors"):
        check(half_way, architecture=replace(samples.architecture, manifest=two))


@pytest.mark.parametrize("text", ["", "x" * 201, "a\tb", "a\u2028b"])
def test_refuses_texts_that_are_not_names(text):
    with pytest.raises(RequestRejectedError, match=r"^The name is 1 to 200 printable characters; choose another\.$"):
        check_text(text, "The name")


@pytest.mark.parametrize("text", ["x", "x" * 200, "Größe 机器"])
def test_accepts_names(text):
    check_text(text, "The name")
