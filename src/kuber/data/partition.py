"""Partitions of a data set over entities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kuber import plugins
from kuber.data.samples import Rows
from kuber.errors import KUberError, SettingsError

ATTEMPTS = 1000  # draws until every entity has enough samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Parameters of a partition."""

    entities: int
    alpha: float  # concentration of the Dirichlet distribution, for partitions that draw from one
    classes: int  # of each entity, for partitions that fix it
    seed: int
    minimum: int  # samples that each entity has at least


# Takes the labels of all samples and returns the rows of each entity: disjoint, in any order. Every process of a run
# calls it again, so equal arguments must give equal rows. Plugins have the same signature.
Partition = Callable[[Rows, Split], Sequence[Rows]]


def divide(name: str, labels: Rows, split: Split) -> list[Rows]:
    """Return the sorted rows of each entity by the built-in partition or plugin of this name.

    Raises SettingsError when the name is unknown, when an entity would get too few samples, or when a plugin fails or
    returns an invalid partition.
    """
    if split.entities * split.minimum > len(labels):
        raise SettingsError(
            f"{len(labels)} training samples cannot give {split.entities} entities {split.minimum} each; "
            "use fewer entities, smaller batches or more samples."
        )
    partition = PARTITIONS.get(name)
    parts = _from_plugin(name, labels, split) if partition is None else partition(labels, split)
    return _check_parts(name, parts, labels, split)


def check_partition(name: str) -> None:
    """Raise SettingsError unless there is a partition of this name."""
    if name not in PARTITIONS:
        _find_plugin(name)


def _find_plugin(name: str) -> Callable[..., Any]:
    plugin = plugins.find(plugins.PARTITIONS, name)
    if plugin is None:
        known = ", ".join(dict.fromkeys([*PARTITIONS, *plugins.names(plugins.PARTITIONS)]))
        raise SettingsError(f"There is no partition {name!r}; choose from: {known}.")
    return plugin


def _from_plugin(name: str, labels: Rows, split: Split) -> Sequence[Rows]:
    """Return the parts made by a plugin. Raises SettingsError when there is none of this name, or it fails."""
    plugin = _find_plugin(name)
    try:
        return list(plugin(labels, split))
    except KUberError:  # the plugin's own message says what to do
        raise
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything; the message names its owner
        (owner,) = plugins.owners(plugins.PARTITIONS, name)
        raise SettingsError(f"The partition {name!r} of {owner} failed: {type(error).__name__}: {error}.") from None


def _check_parts(name: str, parts: Sequence[Rows], labels: Rows, split: Split) -> list[Rows]:
    try:
        checked = [_rows(part) for part in parts]
    except (TypeError, ValueError):
        raise SettingsError(f"The partition {name!r} must return row numbers for each entity.") from None
    if len(checked) != split.entities:
        raise SettingsError(
            f"The partition {name!r} must return a list of rows for each of {split.entities} entities."
        )
    joined = np.concatenate(checked)
    if len(np.unique(joined)) != len(joined) or (len(joined) and not 0 <= joined.min() <= joined.max() < len(labels)):
        raise SettingsError(f"The partition {name!r} returned a row twice, or a row that does not exist.")
    smallest = min(map(len, checked))
    if smallest < split.minimum:
        raise SettingsError(
            f"The partition {name!r} gives an entity {smallest} samples, but each needs {split.minimum}; use fewer "
            "entities, smaller batches or more samples."
        )
    return checked


def _rows(part: Rows) -> Rows:
    """Return the rows as sorted int64. Raises TypeError or ValueError when they are not a list of whole numbers."""
    rows = np.asarray(part)
    # An empty list has no integer dtype; a boolean mask would be taken for rows 0 and 1.
    if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
        raise TypeError
    return np.sort(rows.astype(np.int64))


def iid(labels: Rows, split: Split) -> list[Rows]:
    """Return parts of equal size, drawn at random."""
    shuffled = np.random.default_rng(split.seed).permutation(len(labels))
    return list(np.array_split(shuffled, split.entities))


def _draw_pieces(rows: Rows, split: Split, generator: np.random.Generator) -> list[Rows]:
    """Return the rows shuffled and split by proportions drawn from Dirichlet(alpha), a piece for each entity."""
    proportions = generator.dirichlet(np.full(split.entities, split.alpha))
    cuts = (np.cumsum(proportions)[:-1] * len(rows)).astype(np.int64)
    return np.split(generator.permutation(rows), cuts)


def _draw_until_enough(draw: Callable[[np.random.Generator], list[Rows]], split: Split) -> list[Rows]:
    """Draw parts until each has enough samples. Raises SettingsError when ATTEMPTS draws do not reach it."""
    generator = np.random.default_rng(split.seed)
    for _ in range(ATTEMPTS):
        parts = draw(generator)
        if min(map(len, parts)) >= split.minimum:
            return parts
    raise SettingsError(
        f"In {ATTEMPTS} draws with dirichlet_alpha {split.alpha}, never had all {split.entities} entities "
        f"{split.minimum} samples; use a larger dirichlet_alpha, fewer entities, or smaller batches."
    )


def dirichlet(labels: Rows, split: Split) -> list[Rows]:
    """Return parts that split every class by proportions drawn from Dirichlet(alpha), as NIID-Bench does.

    arXiv 2102.02079 (Hsu et al., arXiv 1909.06335, draw each entity's mixture of classes instead). As there, all is
    drawn again until every entity has enough samples. Raises SettingsError when no draw reaches it.
    """
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def draw(generator: np.random.Generator) -> list[Rows]:
        pieces = [_draw_pieces(rows, split, generator) for rows in classes]
        return [np.concatenate(part) for part in zip(*pieces, strict=True)]

    return _draw_until_enough(draw, split)


def quantity(labels: Rows, split: Split) -> list[Rows]:
    """Return i.i.d. parts whose sizes are proportions drawn from Dirichlet(alpha): NIID-Bench's quantity skew.

    arXiv 2102.02079, section 4.3. The sizes are drawn again until every entity has enough samples. Raises
    SettingsError when no draw reaches it.
    """
    rows = np.arange(len(labels))
    return _draw_until_enough(lambda generator: _draw_pieces(rows, split, generator), split)


def mixture(labels: Rows, split: Split) -> list[Rows]:
    """Return parts of equal size, each with a mixture of classes drawn from Dirichlet(alpha).

    Hsu et al., arXiv 1909.06335. Samples are drawn for one entity after the other, without replacement; once a class
    has run out, the other classes of the mixture take its share. Works for any number of entities and any alpha.
    """
    generator = np.random.default_rng(split.seed)
    left = [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    sizes = [len(part) for part in np.array_split(labels, split.entities)]
    parts = []
    for size in sizes:
        share = generator.dirichlet(np.full(len(left), split.alpha))
        taken: list[Rows] = []
        while size:
            available = np.array([len(rows) for rows in left])
            weights = np.where(available > 0, share, 0.0)
            weights = weights if weights.sum() > 0 else available.astype(float)
            counts = np.minimum(generator.multinomial(size, weights / weights.sum()), available)
            taken += [rows[:count] for rows, count in zip(left, counts, strict=True)]
            left = [rows[count:] for rows, count in zip(left, counts, strict=True)]
            size -= int(counts.sum())
        parts.append(np.concatenate(taken))
    return parts


def shards(labels: Rows, split: Split) -> list[Rows]:
    """Return parts with samples of exactly `classes` classes: NIID-Bench's #C=k (arXiv 2102.02079, section 4.1).

    Classes are dealt like cards, so that their numbers of owners are as equal as possible; the owners of a class get
    equal shares of its samples. With too few entities some classes have no owner and are left out. Raises
    SettingsError when there are fewer classes than `classes`, or a class has fewer samples than owners.
    """
    known = np.unique(labels)
    if split.classes > len(known):
        raise SettingsError(
            f"shards cannot give each entity {split.classes} classes: the data set has {len(known)}; "
            "lower classes_per_entity."
        )
    generator = np.random.default_rng(split.seed)
    owners: dict[int, list[int]] = {int(label): [] for label in known}
    for entity in generator.permutation(split.entities):
        # The classes with the fewest owners first; ties at random.
        order = sorted(generator.permutation(known), key=lambda label: len(owners[int(label)]))
        for label in order[: split.classes]:
            owners[int(label)].append(int(entity))
    parts: list[list[Rows]] = [[] for _ in range(split.entities)]
    for label, members in owners.items():
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) < len(members):
            raise SettingsError(
                f"shards cannot share class {label} among {len(members)} entities: it has {len(rows)} samples; use "
                "fewer entities, a lower classes_per_entity or more samples."
            )
        for entity, piece in zip(members, np.array_split(rows, max(1, len(members))), strict=False):
            parts[entity].append(piece)
    return [np.concatenate(part) for part in parts]


PARTITIONS: dict[str, Partition] = {
    function.__name__: function for function in (dirichlet, shards, iid, quantity, mixture)
}


def stratified(labels: Rows, size: int, seed: int) -> tuple[Rows, Rows]:
    """Return two sorted sets of rows: `size` chosen ones, and the rest.

    The chosen rows have the classes' proportions, up to rounding by largest remainders. Raises SettingsError when
    there are fewer than `size` rows.
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
