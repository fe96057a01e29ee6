from dataclasses import replace

import pytest

from kuber.domain.digest import Digest
from kuber.domain.knowledge import Artifact, TensorSpec
from kuber.domain.publication_checks import USUAL_HEADER, check_text, check_weights
from kuber.domain.safetensors_header import narrowed
from kuber.errors import RequestRejectedError


@pytest.fixture
def check(samples):
    """Check these bytes as the weights of a draft; the lengths that were read."""

    def act(data, **changes):
        stored = Artifact(digest=Digest.of(data), size=len(data))
        lengths = []

        def head(digest, length):
            assert digest == stored.digest
            lengths.append(length)
            return data[:length]

        check_weights(samples.draft("id-0", stored, **changes), head)
        return lengths

    return act


def test_reads_only_the_beginning(check, samples):
    assert check(samples.weights()) == [USUAL_HEADER]


def test_reads_a_long_header_whole(check, samples):
    manifest = {f"block.{number}.weight": TensorSpec(dtype="U8", shape=(1,)) for number in range(2000)}
    data = samples.weights(manifest)
    whole = 8 + int.from_bytes(data[:8], "little")
    assert check(data, architecture=replace(samples.architecture, manifest=manifest)) == [USUAL_HEADER, whole]


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:4]])
def test_refuses_files_that_are_not_sound(check, samples, change):
    with pytest.raises(RequestRejectedError, match="no sound weights"):
        check(change(samples.weights()))


def test_refuses_other_tensors(check, samples):
    with pytest.raises(RequestRejectedError, match="other tensors"):
        check(samples.weights({"weight": TensorSpec(dtype="F32", shape=(2, 4))}))


def test_takes_float32_weights_as_bfloat16_and_nothing_half_way(check, samples):
    specs = dict(samples.architecture.manifest)
    first, *_ = (name for name, spec in specs.items() if spec.dtype == "F32")
    check(samples.weights(narrowed(specs)))
    two = specs | {"second": TensorSpec(dtype="F32", shape=(3,))}
    half_way = two | {first: TensorSpec(dtype="BF16", shape=specs[first].shape)}
    with pytest.raises(RequestRejectedError, match="other tensors"):
        check(samples.weights(half_way), architecture=replace(samples.architecture, manifest=two))


@pytest.mark.parametrize("text", ["", "x" * 201, "a\tb", "a\u2028b"])
def test_refuses_texts_that_are_no_names(text):
    with pytest.raises(RequestRejectedError, match=r"^The name is 1 to 200 printable characters; choose another\.$"):
        check_text(text, "The name")


@pytest.mark.parametrize("text", ["x", "x" * 200, "Größe 机器"])
def test_takes_names(text):
    check_text(text, "The name")
