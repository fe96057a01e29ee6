"""ONNX graphs that took too long here: they are not run again, in whatever record or round."""

from collections import Counter

from kuber.domain.knowledge import ONNX, Knowledge
from kuber.entity.state.journal import Journal

MAX_REMEMBERED = 1000
MAX_OF_A_PUBLISHER = 3  # slow graphs, after which none of its graphs is run


class SlowGraphs:
    """Slow graphs of an entity's state, by digest and publisher."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def add(self, knowledge: Knowledge) -> None:
        """Remember that the graph of this record took too long."""
        artifact = knowledge.artifacts.get(ONNX)
        if artifact is None:
            return
        known = {**self._journal.state.slow_graphs, str(artifact.digest): knowledge.entity}
        self._journal.change(slow_graphs=dict(list(known.items())[-MAX_REMEMBERED:]))

    def reason(self, knowledge: Knowledge) -> str | None:
        """Return why the graph of this record is not run; None if it may be."""
        known, artifact = self._journal.state.slow_graphs, knowledge.artifacts.get(ONNX)
        if artifact is None:
            return None
        if str(artifact.digest) in known:
            return "The ONNX graph exceeded its time limit in another record; do not use it."
        if Counter(known.values())[knowledge.entity] >= MAX_OF_A_PUBLISHER:
            return (
                f"{MAX_OF_A_PUBLISHER} ONNX graphs of its publisher exceeded their time limit; none is run any more."
            )
        return None
