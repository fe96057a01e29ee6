"""The split of a data set over entities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kuber import plugins
from kuber.errors import KUberError, SettingsError

Rows = NDArray[np.int64]
ATTEMPTS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """What a partition is asked for."""

    entities: int
    alpha: float  # concentration of a Dirichlet distribution, where one is drawn from
    classes: int  # of each entity, where that is fixed
    seed: int
    minimum: int  # samples of each entity


# From the labels of all samples, the rows of each entity: disjoint, in any order. Extensions offer the same. Every
# process of a run calls it anew, so equal arguments must give equal rows.
Partition = Callable[[Rows, Split], Sequence[Rows]]


def divide(name: str, labels: Rows, split: Split) -> list[Rows]:
    """The rows of each entity, sorted, by the partition of this name: a built-in one, or an installed extension.

    Raises SettingsError when there is no such partition, when it cannot give every entity enough samples, or when an
    extension fails or gives what is no partition.
    """
    if split.entities * split.minimum > len(labels):
        raise SettingsError(
            f"{len(labels)} training samples cannot give {split.entities} entities {split.minimum} each; "
            "use fewer entities, smaller batches or more samples."
        )
    partition = PARTITIONS.get(name)
    parts = _installed(name, labels, split) if partition is None else partition(labels, split)
    return _checked(name, parts, labels, split)


def check_partition(name: str) -> None:
    """SettingsError when there is no partition of this name."""
    if name not in PARTITIONS:
        _offered(name)


def _offered(name: str) -> Callable[..., Any]:
    offer = plugins.find(plugins.PARTITIONS, name)
    if offer is None:
        known = ", ".join(dict.fromkeys([*PARTITIONS, *plugins.names(plugins.PARTITIONS)]))
        raise SettingsError(f"There is no partition {name!r}; choose from: {known}.")
    return offer


def _installed(name: str, labels: Rows, split: Split) -> Sequence[Rows]:
    """What an extension's partition of this name gives. Raises SettingsError when there is none, or it fails."""
    offer = _offered(name)
    try:
        return list(offer(labels, split))
    except KUberError:  # it says itself what to do
        raise
    except Exception as error:  # noqa: BLE001 - another's code: whatever it raises, the user is told whose it is
        (owner,) = plugins.owners(plugins.PARTITIONS, name)
        raise SettingsError(f"The partition {name!r} of {owner} failed: {type(error).__name__}: {error}.") from None


def _checked(name: str, parts: Sequence[Rows], labels: Rows, split: Split) -> list[Rows]:
    try:
        found = [_rows(part) for part in parts]
    except (TypeError, ValueError):
        raise SettingsError(f"The partition {name!r} must give row numbers for each entity.") from None
    if len(found) != split.entities:
        raise SettingsError(f"The partition {name!r} must give a list of rows for each of {split.entities} entities.")
    together = np.concatenate(found)
    if len(np.unique(together)) != len(together) or (
        len(together) and not 0 <= together.min() <= together.max() < len(labels)
    ):
        raise SettingsError(f"The partition {name!r} gave a sample twice, or one that is not there.")
    smallest = min(map(len, found))
    if smallest < split.minimum:
        raise SettingsError(
            f"The partition {name!r} gives an entity {smallest} samples, but each needs {split.minimum}; use fewer "
            "entities, smaller batches or more samples."
        )
    return found


def _rows(part: Rows) -> Rows:
    """Sorted int64. Raises TypeError or ValueError when this is no list of whole numbers."""
    rows = np.asarray(part)
    # An empty list has no dtype of its own; a mask would pass for rows 0 and 1.
    if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
        raise TypeError
    return np.sort(rows.astype(np.int64))


def iid(labels: Rows, split: Split) -> list[Rows]:
    """Parts of equal size, drawn at random."""
    shuffled = np.random.default_rng(split.seed).permutation(len(labels))
    return list(np.array_split(shuffled, split.entities))


def quantity(labels: Rows, split: Split) -> list[Rows]:
    """Parts whose sizes are proportions drawn from Dirichlet(alpha), each i.i.d.: NIID-Bench's quantity skew.

    arXiv 2102.02079, section 4.3. Drawn again until every entity has enough.
    """
    generator = np.random.default_rng(split.seed)
    for _ in range(ATTEMPTS):
        proportions = generator.dirichlet(np.full(split.entities, split.alpha))
        cuts = (np.cumsum(proportions)[:-1] * len(labels)).astype(np.int64)
        parts = np.split(generator.permutation(len(labels)), cuts)
        if min(map(len, parts)) >= split.minimum:
            return list(parts)
    raise SettingsError(
        f"In {ATTEMPTS} draws of sizes with dirichlet_alpha {split.alpha}, never had all {split.entities} entities "
        f"{split.minimum} samples; use a larger dirichlet_alpha, fewer entities, or smaller batches."
    )


def mixture(labels: Rows, split: Split) -> list[Rows]:
    """Parts of equal size, each with a mixture of classes drawn from Dirichlet(alpha): Hsu et al., arXiv 1909.06335.

    Samples are drawn one entity after the other, without replacement; of a class that has run out, the others are
    drawn in proportion. Fits any number of entities, however small alpha is.
    """
    generator = np.random.default_rng(split.seed)
    left = [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    sizes = [len(part) for part in np.array_split(labels, split.entities)]
    parts = []
    for size in sizes:
        share = generator.dirichlet(np.full(len(left), split.alpha))
        taken: list[Rows] = []
        while size:
            there = np.array([len(rows) for rows in left])
            weights = np.where(there > 0, share, 0.0)
            weights = weights if weights.sum() > 0 else there.astype(float)
            counts = np.minimum(generator.multinomial(size, weights / weights.sum()), there)
            taken += [rows[:count] for rows, count in zip(left, counts, strict=True)]
            left = [rows[count:] for rows, count in zip(left, counts, strict=True)]
            size -= int(counts.sum())
        parts.append(np.concatenate(taken))
    return parts


def shards(labels: Rows, split: Split) -> list[Rows]:
    """Every entity has samples of exactly `classes` classes: NIID-Bench's #C=k (arXiv 2102.02079, section 4.1).

    Classes are dealt like cards, so that each has as equal a number of owners as can be; its samples are shared
    equally among them. With fewer entities than the classes need, some class has no owner and is left out. Raises
    SettingsError when there are fewer classes than asked for, or a class has fewer samples than owners.
    """
    found = np.unique(labels)
    if split.classes > len(found):
        raise SettingsError(
            f"shards cannot give each entity {split.classes} classes: the data set has {len(found)}; "
            "lower classes_per_entity."
        )
    generator = np.random.default_rng(split.seed)
    owners: dict[int, list[int]] = {int(label): [] for label in found}
    for entity in generator.permutation(split.entities):
        # The classes with the fewest owners first; among those, at random.
        order = sorted(generator.permutation(found), key=lambda label: len(owners[int(label)]))
        for label in order[: split.classes]:
            owners[int(label)].append(int(entity))
    parts: list[list[Rows]] = [[] for _ in range(split.entities)]
    for label, those in owners.items():
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) < len(those):
            raise SettingsError(
                f"shards cannot share class {label} among {len(those)} entities: it has {len(rows)} samples; use "
                "fewer entities, a lower classes_per_entity or more samples."
            )
        for entity, piece in zip(those, np.array_split(rows, max(1, len(those))), strict=False):
            parts[entity].append(piece)
    return [np.concatenate(part) for part in parts]


def dirichlet(labels: Rows, *, entities: int, alpha: float, seed: int, minimum: int) -> list[Rows]:
    """Rows for each entity: every class is split by proportions drawn from Dirichlet(alpha).

    As NIID-Bench does it (arXiv 2102.02079; Hsu et al., arXiv 1909.06335, draw each entity's mixture of classes
    instead), and as there drawn again until every entity has at least `minimum` samples. The parts are disjoint, hold
    every row between them, and are sorted. Raises SettingsError when that many samples are not there, or no draw
    gives everybody enough.
    """
    if entities * minimum > len(labels):
        raise SettingsError(
            f"{len(labels)} training samples cannot give {entities} entities {minimum} each; "
            "use fewer entities, smaller batches or more samples."
        )
    generator = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(ATTEMPTS):
        parts: list[list[Rows]] = [[] for _ in range(entities)]
        for rows in classes:
            proportions = generator.dirichlet(np.full(entities, alpha))
            cuts = (np.cumsum(proportions)[:-1] * len(rows)).astype(np.int64)
            for part, piece in zip(parts, np.split(generator.permutation(rows), cuts), strict=True):
                part.append(piece)
        joined = [np.sort(np.concatenate(part)) for part in parts]
        if min(map(len, joined)) >= minimum:
            return joined
    raise SettingsError(
        f"In {ATTEMPTS} draws with dirichlet_alpha {alpha}, never had all {entities} entities {minimum} samples; "
        "use a larger dirichlet_alpha, fewer entities, or smaller batches."
    )


def _dirichlet(labels: Rows, split: Split) -> list[Rows]:
    return dirichlet(labels, entities=split.entities, alpha=split.alpha, seed=split.seed, minimum=split.minimum)


PARTITIONS: dict[str, Partition] = {
    "dirichlet": _dirichlet,
    "shards": shards,
    "iid": iid,
    "quantity": quantity,
    "mixture": mixture,
}


def stratified(labels: Rows, size: int, seed: int) -> tuple[Rows, Rows]:
    """Two sorted sets of rows: `size` chosen ones, and the rest.

    The chosen keep the classes' proportions as nearly as whole numbers allow (largest remainders). Raises
    SettingsError when there are fewer rows than asked for.
    """
    if not 0 <= size <= len(labels):
        raise SettingsError(f"{size} samples cannot be chosen from {len(labels)}.")
    generator = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    exact = [len(rows) * size / len(labels) for rows in classes]
    counts = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(counts - exact, kind="stable")  # largest remainder first
    counts[by_remainder[: size - counts.sum()]] += 1
    shuffled = [generator.permutation(rows) for rows in classes]
    chosen = np.sort(np.concatenate([rows[:count] for rows, count in zip(shuffled, counts, strict=True)]))
    return chosen, np.setdiff1d(np.arange(len(labels)), chosen, assume_unique=True)
