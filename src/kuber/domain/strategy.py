"""The decisions of a strategy: when to publish, when to discover, what to choose, how to absorb, what to keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, CarriedPrior, Knowledge
from kuber.domain.query import Query


@dataclass(frozen=True, kw_only=True, slots=True)
class Guidance:
    """Settings of a local phase with frozen teachers: see `kuber.learning.ensembling`."""

    temperature: float = 2.0  # softens teachers and student
    weight: float = 1.0  # of the teachers' loss, beside the loss on the labels
    sharpness: float = 2.0  # how much more a competent teacher counts than a less competent one; 0: all alike
    augmented: bool = False  # teachers see each augmented batch; else each sample once, unaugmented
    own_start: bool = False  # the model that the phase starts from is one of the teachers
    advantage: float = 0.1  # recall ahead of the student's at which teachers have their full weight; 0: always
    own_class: bool = field(default=False, metadata={"added_later": True})  # follow teachers on the label's class too


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalPhase:
    """The objective of a local phase."""

    loss: Literal["cross-entropy", "balanced-softmax"] = "cross-entropy"
    proximal: float = 0.0  # weight of the squared distance to the weights it starts from (FedProx's mu)
    guidance: Guidance | None = None  # when there are teachers

    @property
    def prior(self) -> CarriedPrior:
        """Prior that the logits of a model carry after it."""
        return "uniform" if self.loss == "balanced-softmax" else "own"


class Method(StrEnum):
    """How knowledge is absorbed."""

    DISTIL = "distil"  # in epochs of its own, after a local phase
    GUIDE = "guide"  # as frozen teachers during a local phase
    MERGE = "merge"  # by averaging weights, after a local phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """A wait for newer models before a merge, in seconds."""

    round: float  # how long the round took before the wait
    left: float  # of the longest wait
    quiet: float  # since another model came, or since the wait began
    due: Mapping[str, float]  # knowledge id -> until its entity is expected to publish again, where that is known


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """Everything an entity knows when it decides."""

    round: int
    classes: int  # number of classes of the task
    own: Evaluation | None  # of the current model; None before the first evaluation
    previous: Evaluation | None  # at the end of the round before
    published: Evaluation | None = None  # of the model that was published last
    samples: int = 0  # number of private samples; 0 if the owner does not state it
    architecture: Architecture | None = None
    origin: Digest | None = None  # initial checkpoint that the weights descend from
    ages: Mapping[str, int] = field(default_factory=dict)  # knowledge id -> own rounds since it was first seen
    wait: Wait | None = None  # while the entity waits for newer models


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Knowledge that was pulled, and the entity's own evaluation of it, or its claim."""

    knowledge: Knowledge
    evaluation: Evaluation
    is_claim: bool = False  # whether the evaluation is its publisher's


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A strategy's choice: from which candidates, for which method, and what was absorbed of it."""

    method: Method
    situation: Situation
    candidates: Sequence[Knowledge]  # to choose from
    chosen: Sequence[Knowledge]  # best first
    absorbed: Sequence[Candidate] = ()  # the chosen that were pulled, sound, and of some weight
    shares: Sequence[float] = ()  # weight of each of these in a merge, beside the own model's 1


class Strategy(Protocol):
    """Pure decisions: a strategy trains, sends and stores nothing."""

    @property
    def name(self) -> str: ...

    @property
    def common_start(self) -> bool:
        """Whether to begin from an initial checkpoint that the entities agree on."""

    def local_phase(self) -> LocalPhase:
        """Return the objective of the next local phase."""

    def before(self, situation: Situation) -> tuple[Method, Query] | None:
        """Return how to absorb knowledge in the next local phase, and the query for it; None to discover nothing.

        The entity adds its task, and excludes its own records and initial checkpoints. Without a common test set
        claims cannot be compared, so minimum accuracy and order are replaced by the newest first.
        """

    def publishes(self, situation: Situation) -> bool:
        """Return whether to publish after a local phase."""

    def after(self, situation: Situation) -> tuple[Method, Query] | None:
        """Return how to absorb knowledge after a local phase, and the query for it, as `before` does."""

    def choose(self, candidates: Sequence[Knowledge], method: Method, situation: Situation) -> Sequence[Knowledge]:
        """Return the candidates to pull, best first; none when none helps."""

    def shares(self, candidates: Sequence[Candidate], situation: Situation) -> Sequence[float]:
        """Return the weight of each pulled candidate in a merge, beside the own model's 1."""

    def keep(self, before: Evaluation, after: Evaluation, *, class_counts: Sequence[int] | None = None) -> bool:
        """Return whether to keep a model that absorbed knowledge.

        `class_counts` are the entity's own samples of each class, if it knows them. A strategy may omit this
        argument.
        """

    def explain(self, choice: Choice) -> str:
        """Return why the absorbed knowledge was chosen, in one sentence. A strategy may omit this method."""
