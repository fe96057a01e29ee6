"""`kuber knowledge` on running services and published models."""

import contextlib
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import kuber as public
from kuber.cli import main
from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from tests.fixtures.hub import running_hub

SHAPE, LABELS = (1, 8, 8), ("bright", "dark")


def kuber(*arguments, columns=120):
    """Run `kuber knowledge`; return the exit code and the output."""
    output = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["kuber", "knowledge", *map(str, arguments)]),
        mock.patch.dict("os.environ", {"COLUMNS": str(columns), "TERM": "dumb"}),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return ended.value.code or 0, output.getvalue()


class Sum(nn.Module):
    """Classifies pictures as bright whose mean pixel is above one half."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        light = (x.flatten(1).mean(1, keepdim=True) - 0.5) * self.scale
        return torch.cat([light, -light], 1)


def pictures(count):
    y = np.arange(count) % 2
    x = np.where(y == 0, 220, 30)[:, None, None] + np.random.default_rng(0).integers(-20, 20, (count, 8, 8))
    return x.astype(np.uint8), y


@pytest.fixture(scope="module")
def hub(process, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    task = public.Task(name="light [b]", labels=LABELS, input_shape=SHAPE)
    first = ""
    with running_hub(folder, "--open-enrolment") as services:
        for name, count in (("first", 20), ("second", 22)):
            x, y = pictures(count)
            validation = torch.from_numpy(x[:, None].astype(np.float32) / 255), torch.from_numpy(y)
            with public.Entity(
                name,
                model=Sum(),
                task=task,
                validation=validation,
                hub=services.registry,
                vault=services.vault,
                folder=folder / name,
                strategy="vanilla",
                carried_prior="uniform" if name == "first" else None,
            ) as entity:
                entity.publish()
                if name == "second":
                    with torch.no_grad():
                        entity.model.scale.mul_(2)
                    entity._journal.change(parents=(first,))  # as if it had learned from the first
                    entity.publish()
            records = HttpRegistry(services.registry, credentials=Credentials(token=services.operator))
            first = first or records.discover(public.Query()).items[0].id
            records.close()
        token = ["--admin-token", folder / "registry" / "admin-token"]
        yield folder, first, ["--registry", services.registry, *token], ["--vault", services.vault]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_listing_fits_the_terminal(hub, columns):
    _, first, registry, _ = hub
    code, output = kuber("list", *registry, columns=columns)
    assert code == 0
    assert max(map(len, output.splitlines())) <= columns
    assert first[-12:] in output
    assert "light [b]" in output
    assert ("onnx weights" in output) == (columns == 120)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_best_of_several_validation_sets_are_not_ranked_in_silence(hub, columns):
    _, _, registry, _ = hub
    code, output = kuber("list", "--best", *registry, columns=columns)
    assert code == 0
    assert "These figures are of 2 different validation sets, and cannot be compared" in output
    rows = [line.split() for line in output.splitlines() if "light" in line]
    place = next(line.split() for line in output.splitlines() if "accuracy" in line).index("set") + 1
    assert len({row[place] for row in rows}) == 2, output  # "light [b]" is two words
    assert "cannot be compared" not in kuber("list", *registry)[1]


def test_a_record_is_shown_by_the_end_of_its_id(hub):
    _, first, registry, _ = hub
    code, output = kuber("show", first[-8:], *registry)
    assert code == 0
    assert first in output
    assert re.search(r"its publisher's own data, 20 samples, since \d{4}-\d\d-\d\d, set [0-9a-f]{6}", output)
    assert "bright" in output


def test_the_prior_of_a_record_is_shown_if_it_is_stated(hub):
    _, first, registry, _ = hub
    _, listing = kuber("list", *registry)
    second = next(line.split()[1] for line in listing.splitlines() if "second" in line)
    priors = [
        [line for line in kuber("show", id, *registry, columns=80)[1].splitlines() if line.split()[:1] == ["prior"]]
        for id in (first, second)
    ]
    assert [line.split(maxsplit=1)[1].strip() for line in priors[0]] == ["uniform, equal class frequencies"]
    assert priors[1] == []


def test_files_are_pulled_whole(hub, tmp_path, caplog):
    _, first, registry, vault = hub
    code, output = kuber("pull", first, "--to", tmp_path / "here", *registry, *vault)
    assert code == 0
    assert sorted(path.suffix for path in (tmp_path / "here").iterdir()) == [".json", ".onnx", ".safetensors"]
    assert len([line for line in output.splitlines() if line.startswith(str(tmp_path))]) == 3
    assert "which only the registry says is that of entity 'first'" in caplog.text


def test_a_signature_is_checked_with_the_key_that_an_entity_has_pinned(hub, tmp_path):
    folder, first, registry, vault = hub
    places = [*registry[:2], *vault, "--to", tmp_path]
    assert kuber("pull", first, *places, "--identity", folder / "second")[0] == 0
    copy = tmp_path / "copy"
    shutil.copytree(folder / "second", copy)
    other = "0" * 64
    state = json.dumps({"keys": {json.loads((tmp_path / f"{first}.json").read_text())["entity"]: other}})
    header = json.dumps({"__metadata__": {"state": state}}).encode()
    (copy / "checkpoint.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    code, output = kuber("pull", first, *places, "--identity", copy)
    assert (code, "names other keys of entity 'first' than before" in output) == (1, True), output


def test_a_model_is_evaluated_on_arrays_and_on_pictures(hub, tmp_path):
    _, first, registry, vault = hub
    x, y = pictures(30)
    np.savez(tmp_path / "mine.npz", x=x, y=np.array(LABELS)[y])
    code, output = kuber("evaluate", first, tmp_path / "mine.npz", *registry, *vault)
    assert (code, "100.0% on 30 samples" in output) == (0, True), output
    for place, (image, label) in enumerate(zip(x, y, strict=True)):
        path = tmp_path / "pictures" / LABELS[label] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((16, 16)).save(path)
    code, output = kuber("evaluate", first, tmp_path / "pictures", *registry, *vault)
    assert (code, "100.0% on 30 samples" in output) == (0, True), output
    code, output = kuber("evaluate", first, tmp_path / "mine.npz", "--mean", "-1", "--std", "1", *registry, *vault)
    assert (code, "50.0% on 30 samples" in output) == (0, True), output


def test_a_model_that_its_publisher_has_not_signed_is_not_evaluated(hub, tmp_path, monkeypatch):
    _, first, registry, vault = hub
    x, y = pictures(2)
    np.savez(tmp_path / "mine.npz", x=x, y=np.array(LABELS)[y])
    answered = HttpRegistry.knowledge
    monkeypatch.setattr(HttpRegistry, "knowledge", lambda self, id: replace(answered(self, id), round=99))
    code, output = kuber("evaluate", first, tmp_path / "mine.npz", *registry, *vault)
    assert (code, "is not signed with the key of its entity" in " ".join(output.split())) == (1, True), output


def test_the_tree_shows_who_taught_whom(hub):
    _, _, registry, _ = hub
    code, output = kuber("tree", *registry, columns=80)
    assert code == 0
    lines = output.splitlines()
    place = next(i for i, line in enumerate(lines) if "second, round 2" in line)
    assert "first, round 1" in lines[place + 1]
    assert lines[place + 1].index("first") > lines[place].index("second")


def wrong_data(folder, name):
    x, y = pictures(20)
    np.savez(folder / "names.npz", x=x, y=np.array(["cat", "dog"])[y])
    np.savez(folder / "shape.npz", x=x[:, :4], y=y)
    (folder / "empty").mkdir()
    return folder / name


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("names.npz", [], "no class 'cat', but: bright, dark"),
        ("shape.npz", [], "samples in .* have shape"),
        ("empty", [], "no images"),
        ("nothing.npz", [], "does not exist"),
        ("names.npz", ["--mean", "0.5"], "must be given together"),
        ("names.npz", ["--mean", "a", "--std", "b"], "not a list of numbers"),
    ],
)
def test_unsuitable_data_are_refused_in_one_sentence(hub, tmp_path, name, options, words):
    _, first, registry, vault = hub
    code, output = kuber("evaluate", first, wrong_data(tmp_path, name), *options, *registry, *vault)
    assert code in (2, 3)
    assert re.search(words, " ".join(output.split()))
    assert "Traceback" not in output


def test_an_unknown_id_is_refused(hub):
    _, _, registry, _ = hub
    code, output = kuber("show", "zzz", *registry)
    assert code == 2
    assert "no record" in output


def test_an_entity_withdraws_only_its_own_records(hub):
    folder, first, registry, _ = hub
    url = registry[:2]
    code, output = kuber("withdraw", first, "--identity", folder / "second", *url)
    assert code == 4, output
    code, output = kuber("withdraw", first, "--identity", folder / "nobody", *url)
    assert (code, "no token" in output) == (2, True)
    code, output = kuber("withdraw", first, "--identity", folder / "first", *url)
    assert (code, "is withdrawn" in output) == (0, True), output
    assert first[-12:] not in kuber("list", *registry)[1]


def test_an_ambiguous_id_is_refused(hub):
    _, _, registry, _ = hub
    code, output = kuber("show", "0", *registry)  # ids begin with their time
    assert code == 2
    assert "give more characters" in output
