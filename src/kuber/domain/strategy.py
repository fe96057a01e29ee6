"""What a strategy decides: when to publish, when to seek, whom to choose, how to absorb, what to keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, Knowledge
from kuber.domain.query import Order


@dataclass(frozen=True, kw_only=True, slots=True)
class Guidance:
    """How a local phase listens to frozen teachers, its guides: see `kuber.learning.ensembling`."""

    temperature: float = 2.0  # softens guides and student
    weight: float = 1.0  # of what the guides say, beside the loss on the labels
    sharpness: float = 2.0  # how much more a competent guide counts than a less competent one; 0: all alike
    augmented: bool = False  # guides see each augmented batch; else each sample once, as it is
    own_start: bool = False  # the model that the phase starts from is one of the guides


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalPhase:
    """What a local phase optimises."""

    loss: Literal["cross-entropy", "balanced-softmax"] = "cross-entropy"
    proximal: float = 0.0  # weight of the squared distance to the weights it starts from (FedProx's mu)
    guidance: Guidance | None = None  # where there are guides


class Method(StrEnum):
    """How knowledge is absorbed."""

    DISTIL = "distil"  # in epochs of its own, after a local phase
    GUIDE = "guide"  # as frozen teachers during a local phase
    MERGE = "merge"  # by averaging weights, after a local phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What to ask the registry for, and what for."""

    method: Method
    min_accuracy: float | None = None
    origin: Digest | None = None  # only what descends from this initial checkpoint, newest first
    latest: bool = False  # only the newest knowledge of each entity
    classes: tuple[int, ...] = ()  # rank by the recall on these
    limit: int = 10  # candidates to look at

    @property
    def order(self) -> Order:
        if self.classes:
            return "classes"
        return "newest" if self.origin else "accuracy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What an entity knows when it decides."""

    round: int
    classes: int  # of the task
    own: Evaluation | None  # of the model as it is; None before the first evaluation
    previous: Evaluation | None  # at the end of the round before
    shared: Evaluation | None = None  # of what we published last
    samples: int = 0  # private ones; 0 where that is not told
    architecture: Architecture | None = None
    origin: Digest | None = None  # of the initial checkpoint that our weights descend from
    ages: Mapping[str, int] = field(default_factory=dict)  # knowledge id -> own rounds since we first saw it


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Knowledge that was pulled, with what we found when we evaluated it ourselves."""

    knowledge: Knowledge
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What a strategy chose, from what, and what became of it."""

    search: Search
    situation: Situation
    candidates: Sequence[Knowledge]  # that it chose from
    chosen: Sequence[Knowledge]  # best first
    absorbed: Sequence[Candidate] = ()  # who is left of the chosen: pulled, sound, and of some weight
    shares: Sequence[float] = ()  # what each of these weighs in a merge, beside our own model's one


class Strategy(Protocol):
    """Decisions only: nothing here trains, sends or stores."""

    @property
    def name(self) -> str: ...

    @property
    def common_start(self) -> bool:
        """Whether to begin from an initial checkpoint that the entities agree on."""
        ...

    def local_phase(self) -> LocalPhase:
        """What to optimise in the coming local phase."""
        ...

    def before(self, situation: Situation) -> Search | None:
        """What to seek before a local phase; None for nothing."""
        ...

    def publishes(self, situation: Situation) -> bool:
        """Whether to publish after a local phase."""
        ...

    def after(self, situation: Situation) -> Search | None:
        """What to seek after a local phase; None for nothing."""
        ...

    def choose(self, candidates: Sequence[Knowledge], search: Search, situation: Situation) -> Sequence[Knowledge]:
        """Which of the candidates to pull, best first; none when none helps."""
        ...

    def shares(self, candidates: Sequence[Candidate], situation: Situation) -> Sequence[float]:
        """What each pulled candidate weighs in a merge, beside our own model's one."""
        ...

    def keep(self, before: Evaluation, after: Evaluation) -> bool:
        """Whether what was absorbed stays."""
        ...

    def explain(self, choice: Choice) -> str:
        """Why those who were absorbed: one sentence of facts. A strategy without this gives no reasons."""
        ...
