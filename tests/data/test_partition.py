import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kuber.data.partition import PARTITIONS, Split, divide, stratified
from kuber.errors import SettingsError

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=300).map(lambda labels: np.array(labels, np.int64))
SEEDS = st.integers(0, 2**32 - 1)


def split(entities: int = 4, *, alpha: float = 0.5, classes: int = 2, seed: int = 0, minimum: int = 1) -> Split:
    return Split(entities=entities, alpha=alpha, classes=classes, seed=seed, minimum=minimum)


def dirichlet(labels, **changes):
    return divide("dirichlet", labels, split(**changes))


@given(labels=LABELS, entities=st.integers(1, 6), alpha=st.floats(0.5, 1e6), seed=SEEDS, data=st.data())
def test_parts_are_disjoint_complete_sorted_and_large_enough(labels, entities, alpha, seed, data):
    minimum = data.draw(st.integers(0, len(labels) // entities // 4))
    parts = dirichlet(labels, entities=entities, alpha=alpha, seed=seed, minimum=minimum)
    assert len(parts) == entities
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert all(len(part) >= minimum and (np.diff(part) > 0).all() for part in parts)
    again = dirichlet(labels, entities=entities, alpha=alpha, seed=seed, minimum=minimum)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(alpha=st.floats(0, 1e6, exclude_min=True), seed=SEEDS)
def test_any_alpha_gives_a_complete_partition(alpha, seed):
    labels = np.repeat(np.arange(10), 20)
    parts = dirichlet(labels, entities=4, alpha=alpha, seed=seed, minimum=0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(200))


def test_alpha_controls_how_similar_the_parts_are():
    labels = np.repeat(np.arange(10), 500)

    def largest_class_share(alpha):
        parts = dirichlet(labels, entities=4, alpha=alpha, seed=1, minimum=10)
        return np.mean([np.bincount(labels[part]).max() / len(part) for part in parts])

    assert largest_class_share(1e5) < 0.12
    assert 0.15 < largest_class_share(0.5) < largest_class_share(0.05)


def test_other_seeds_give_other_parts():
    labels = np.repeat(np.arange(10), 50)
    first, second = (dirichlet(labels, entities=3, alpha=0.5, seed=seed, minimum=1) for seed in (0, 1))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_too_few_samples_are_refused():
    with pytest.raises(SettingsError, match=r"10 training samples cannot give 3 entities 4 each"):
        dirichlet(np.zeros(10, np.int64), entities=3, alpha=1.0, seed=0, minimum=4)


def test_a_hopeless_draw_is_an_error_of_one_sentence():
    with pytest.raises(SettingsError, match="use a larger dirichlet_alpha"):
        dirichlet(np.zeros(100, np.int64), entities=4, alpha=0.01, seed=0, minimum=25)


@given(labels=LABELS, seed=SEEDS, data=st.data())
def test_stratified_is_exact_in_size_and_within_one_in_each_class(labels, seed, data):
    size = data.draw(st.integers(0, len(labels)))
    chosen, rest = stratified(labels, size, seed)
    assert len(chosen) == size
    assert sorted([*chosen, *rest]) == list(range(len(labels)))
    assert (np.diff(chosen) > 0).all()
    assert (np.diff(rest) > 0).all()
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        assert abs((labels[chosen] == label).sum() - count * size / len(labels)) < 1
    assert np.array_equal(chosen, stratified(labels, size, seed)[0])


def test_stratified_depends_on_its_seed():
    labels = np.repeat(np.arange(10), 50)
    assert not np.array_equal(stratified(labels, 100, 0)[0], stratified(labels, 100, 1)[0])


@pytest.mark.parametrize("size", [-1, 11])
def test_stratified_refuses_an_impossible_size(size):
    with pytest.raises(SettingsError, match="cannot be chosen from 10"):
        stratified(np.zeros(10, np.int64), size, 0)


TEN = np.repeat(np.arange(10), 60)


@pytest.mark.parametrize("name", PARTITIONS)
@settings(max_examples=40)
@given(entities=st.integers(5, 12), seed=SEEDS)
def test_every_partition_is_complete_disjoint_sorted_and_seeded(name, entities, seed):
    parts = divide(name, TEN, split(entities, seed=seed))
    assert sorted(np.concatenate(parts).tolist()) == list(range(600))
    assert all((np.diff(part) > 0).all() for part in parts)
    again = divide(name, TEN, split(entities, seed=seed))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize(("entities", "classes"), [(5, 2), (10, 1), (4, 3), (7, 10), (20, 3)])
def test_shards_give_each_entity_its_number_of_classes(entities, classes):
    parts = divide("shards", TEN, split(entities, classes=classes))
    assert [len(np.unique(TEN[part])) for part in parts] == [classes] * entities
    owners = np.bincount(np.concatenate([np.unique(TEN[part]) for part in parts]), minlength=10)
    assert owners.max() - owners.min() <= 1


def test_shards_leave_out_a_class_without_owner():
    parts = divide("shards", TEN, split(2, classes=2))
    assert sum(map(len, parts)) == 4 * 60


def test_iid_parts_are_equal_in_size_and_similar_in_classes():
    parts = divide("iid", TEN, split(4))
    assert [len(part) for part in parts] == [150] * 4
    assert min(np.bincount(TEN[part], minlength=10).min() for part in parts) > 5


def test_mixtures_are_equal_in_size_and_skewed_by_alpha():
    labels = np.tile(np.arange(10), 150)
    biggest = {}
    for alpha in (0.1, 100.0):
        parts = divide("mixture", labels, split(100, alpha=alpha, minimum=15))
        assert {len(part) for part in parts} == {15}
        assert sorted(np.concatenate(parts)) == list(range(1500))
        biggest[alpha] = np.mean([np.bincount(labels[part]).max() / len(part) for part in parts])
    assert biggest[0.1] > 0.5  # the most frequent class of an entity
    assert biggest[100.0] < 0.3


def test_quantity_parts_differ_in_size_and_not_in_classes():
    parts = divide("quantity", np.tile(np.arange(10), 5000), split(4, alpha=0.5))
    sizes = sorted(map(len, parts))
    assert sizes[-1] > 2 * sizes[0]
    largest = max(parts, key=len)
    assert np.bincount(largest % 10).max() / len(largest) < 0.12


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("nonsense", {}, "There is no partition 'nonsense'; choose from: dirichlet, shards, iid, quantity, mixture"),
        ("iid", {"minimum": 151}, "600 training samples cannot give 4 entities 151 each"),
        ("shards", {"classes": 11}, "lower classes_per_entity"),
        ("shards", {"entities": 20, "classes": 1, "minimum": 30 + 1}, "600 training samples cannot give"),
        ("shards", {"entities": 19, "classes": 1, "minimum": 31}, "gives an entity 30 samples"),
        ("quantity", {"alpha": 0.01, "minimum": 149}, "use a larger dirichlet_alpha"),
    ],
)
def test_an_impossible_split_is_an_error_of_one_sentence(name, changes, sentence):
    with pytest.raises(SettingsError, match=sentence):
        divide(name, TEN, split(**changes))


def test_shards_refuse_a_class_with_fewer_samples_than_owners():
    labels = np.array([0, *np.repeat(np.arange(1, 4), 50)])
    with pytest.raises(SettingsError, match="cannot share class 0 among 4 entities: it has 1 samples"):
        divide("shards", labels, split(8, classes=2))


def test_shards_leave_no_class_out_if_there_are_enough_owners():
    for entities, classes in [(5, 2), (10, 1), (4, 3)]:
        owned = np.unique(TEN[np.concatenate(divide("shards", TEN, split(entities, classes=classes, seed=3)))])
        assert len(owned) == 10


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package whose partition `own` has this body."""

    def install(body):
        folder = tmp_path / "own_parts-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: own_parts\nVersion: 1.0\n", encoding="utf-8")
        (folder / "entry_points.txt").write_text("[kuber.partitions]\nown = own_parts:own\n", encoding="utf-8")
        source = f"import numpy as np\nfrom kuber.errors import SettingsError\ndef own(labels, split):\n    {body}\n"
        (tmp_path / "own_parts.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("own_parts", None)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise KeyError('ward')", r"The partition 'own' of own_parts failed: KeyError: 'ward'\."),
        ("yield 1 / 0", "of own_parts failed: ZeroDivisionError"),
        ("return None", "of own_parts failed: TypeError"),
        ("raise SettingsError('Give six hospitals.')", r"^Give six hospitals\.$"),
        ("return [[], [], [], list(range(600))]", "gives an entity 0 samples, but each needs 1"),
        ("return [labels == k for k in range(4)]", "must return row numbers"),
        ("return [[[0]], [[1]], [[2]], [[3]]]", "must return row numbers"),
        ("return [[0], [1], [2], [-1]]", "a row that does not exist"),
        ("return [[0], [1], [2], [600]]", "a row that does not exist"),
        ("return []", "for each of 4 entities"),
    ],
)
def test_a_plugin_that_fails_is_an_error_of_one_sentence(install, body, sentence):
    install(body)
    with pytest.raises(SettingsError, match=sentence):
        divide("own", TEN, split())


@pytest.mark.parametrize("dtype", ["int32", "uint8", "uint64"])
def test_a_plugin_may_return_any_whole_numbers_in_any_order(install, dtype):
    install(f"return [np.arange(k, 200, 4, dtype='{dtype}')[::-1] for k in range(4)]")
    parts = divide("own", TEN, split())
    assert [part.tolist() for part in parts] == [list(range(k, 200, 4)) for k in range(4)]
    assert all(part.dtype == np.int64 for part in parts)
