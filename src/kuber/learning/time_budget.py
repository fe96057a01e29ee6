"""Budgets of processor time for ONNX graphs: in an evaluation, and in a phase of training.

A graph may take much longer for other samples than for those it was evaluated on. So in a phase it gets a multiple of
what it took in the evaluation, and is left out beyond that.
"""

import math
from dataclasses import dataclass

GRACE_SECONDS = 5.0  # of a phase, beyond the multiple
PACE_FACTOR = 10.0  # times the seconds of a batch in the evaluation
LEAST_PACE = 0.001  # seconds of a batch; less is mostly the process's own work
PHASE_SHARE = 0.95  # of the time since the phase began, where that is more than `seconds`


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeBudget:
    """Processor time that a graph may take since `started`, and time on the clock."""

    started: float  # on the monotonic clock
    seconds: float  # of processor time
    pace: float | None = None  # processor seconds of a batch in the evaluation; None if it is not known
    share: float = 0.0  # of the time since `started` that is allowed in any case
    wall_seconds: float = math.inf  # on the clock

    def allowed(self, batches: int, now: float) -> float:
        """Return the processor seconds that the graph may have taken by now, for this number of batches."""
        most = max(self.seconds, self.share * (now - self.started))
        if self.pace is None:
            return most
        return min(most, GRACE_SECONDS + PACE_FACTOR * max(self.pace, LEAST_PACE) * batches)

    def left(self, used: float, batches: int, now: float) -> float:
        """Return the seconds left, of processor time or on the clock, whichever ends first; negative beyond."""
        return min(self.allowed(batches, now) - used, self.started + self.wall_seconds - now)


@dataclass(kw_only=True, slots=True)
class TimeAccount:
    """Time that a graph has taken since its budget began."""

    budget: TimeBudget | None = None
    batches: int = 0
    waited: float = 0.0  # seconds for replies
    waiting_since: float | None = None
    cpu_before: float = 0.0  # processor seconds before the budget began
    evaluating: bool = False
    pace: float | None = None  # processor seconds of a batch in the last evaluation
