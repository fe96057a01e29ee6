"""The split of a data set over entities."""

import numpy as np
from numpy.typing import NDArray

from kuber.errors import SettingsError

Rows = NDArray[np.int64]
ATTEMPTS = 1000


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
