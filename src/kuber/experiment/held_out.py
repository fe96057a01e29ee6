"""Reported accuracies: models from checkpoints on the held-out test set, which no decision reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kuber.data.partition import stratified
from kuber.data.samples import Samples
from kuber.domain.digest import Digest
from kuber.domain.evaluation import recalls_of
from kuber.domain.knowledge import Architecture
from kuber.domain.prior import Frequencies, accuracy_on, carried_prior, frequencies, uniform
from kuber.entity.state.checkpoint import round_path
from kuber.entity.state.event_log import FILE_NAME, read_events
from kuber.entity.work.learner import Learner
from kuber.errors import CorruptKnowledgeError, KnowledgeError
from kuber.experiment.entity_factory import entity_folder, make_learner, make_private_learner
from kuber.experiment.run_result import HeldOutAccuracy
from kuber.experiment.scenario import Scenario
from kuber.learning.ensembling import mixture_log_probs
from kuber.learning.evaluation import correct_after, labelled_logits
from kuber.learning.priors import candidate_shifts, log_ratio
from kuber.learning.runtime import Runtime, available_cores, keep_freed_memory
from kuber.learning.weights import Weights, load
from kuber.views.run import RunView

INTERIM_SAMPLES = 1000  # held-out samples for the rounds between the first and the last

Answers = Callable[[Samples], tuple[Tensor, Tensor]]  # logits, shape (samples, classes), and labels


def interim_part(scenario: Scenario) -> Samples:
    """Return the fixed, stratified part of the held-out test set for the rounds between the first and the last."""
    return _part(scenario.held_out)


def deciding_part(scenario: Scenario) -> Samples:
    """Return the fixed, stratified part of the common test set on which the prior of plain models is chosen."""
    return _part(scenario.common)


def _part(whole: Samples) -> Samples:
    if len(whole) <= INTERIM_SAMPLES:
        return whole
    return whole.take(stratified(whole.labels, INTERIM_SAMPLES, seed=0)[0])


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out samples, or a part of them, and how many there are of each class."""

    samples: Samples
    digest: Digest
    total: tuple[int, ...]

    @classmethod
    def of(cls, samples: Samples, classes: int) -> "HeldOut":
        """Return these samples, counted."""
        total = np.bincount(samples.labels, minlength=classes)
        return cls(samples, samples.digest(), tuple(int(count) for count in total))

    def accuracies(
        self,
        general: Sequence[int],
        own: Sequence[int],
        class_counts: Sequence[int],
        private: Sequence[int] | None = None,
    ) -> HeldOutAccuracy:
        """Return the accuracies of a model with these correct answers of each class, for these class counts.

        `private` are those of a private network alone.
        """
        recalls, total = recalls_of(own, self.total), sum(self.total)
        return HeldOutAccuracy(
            general=sum(general) / total,
            own=accuracy_on(class_counts, recalls),
            private=None if private is None else sum(private) / total,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivatePart:
    """A private network, whose probabilities are averaged with those of its proxy."""

    learner: Learner
    weights: Weights
    share: float  # of the proxy


def mean_logits(learner: Learner, models: Sequence[Weights]) -> Answers:
    """Return what computes the logits of one model, or the mean logits of several."""
    networks = [learner.model(model) for model in models]

    def answers(samples: Samples) -> tuple[Tensor, Tensor]:
        found = [_logits(learner, network, samples) for network in networks]
        logits = [logits for logits, _ in found]
        return (logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)), found[0][1]

    return answers


def pair_answers(proxy: Answers, private: Answers, share: float) -> Answers:
    """Return what computes the log of the mean probabilities of a proxy, with this share, and a private network."""

    def answers(samples: Samples) -> tuple[Tensor, Tensor]:
        (first, labels), (second, _) = proxy(samples), private(samples)
        return mixture_log_probs([first, second], [share, 1 - share]), labels

    return answers


def remembered(answers: Answers) -> Answers:
    """Return the same answers, computed once for each of the samples."""
    known: dict[int, tuple[Samples, tuple[Tensor, Tensor]]] = {}

    def once(samples: Samples) -> tuple[Tensor, Tensor]:
        if id(samples) not in known:
            known[id(samples)] = samples, answers(samples)
        return known[id(samples)][1]

    return once


def _logits(learner: Learner, network: nn.Module, samples: Samples) -> tuple[Tensor, Tensor]:
    return labelled_logits(network, learner.ordered_batches(samples), runtime=learner.runtime)


def correct_answers(
    answers: Answers,
    samples: Samples,
    *,
    carried: Frequencies,
    class_counts: Sequence[Sequence[int]],
    deciding: Samples,
) -> Tensor:
    """Return the correct answers per class, after one forward pass.

    The result has shape (1 + entities, classes): general first, then own of each entity with these class counts.
    Answers that carry no uniform prior carry `carried` to one of POWERS: the one with the highest accuracy on the
    samples `deciding`, which only then are run. A model that others taught carries less of its samples' prior.
    """
    classes = len(carried)
    flat = uniform(classes)
    targets = [flat, *map(frequencies, class_counts)]
    shifts = torch.stack([log_ratio(carried, target) for target in targets])
    if carried != flat:
        candidates = torch.stack([candidate_shifts(carried, target) for target in targets], dim=1)
        found = correct_after(*answers(deciding), candidates.flatten(0, 1)).view_as(candidates)
        totals = torch.bincount(torch.from_numpy(deciding.labels), minlength=classes).clamp_min(1)
        counts = torch.tensor(class_counts, dtype=totals.dtype).reshape(len(class_counts), classes)
        mixtures = torch.cat([totals.unsqueeze(0), counts])  # samples that each class counts as
        best = (found * mixtures / totals).sum(2).argmax(0)
        shifts = candidates[best, torch.arange(len(targets))]
    return correct_after(*answers(samples), shifts)


def deployed_answers(
    learner: Learner,
    models: Sequence[Weights],
    samples: Samples,
    *,
    private: PrivatePart | None = None,
    carried: Frequencies,
    class_counts: Sequence[Sequence[int]],
    deciding: Samples,
) -> Tensor:
    """Return the correct answers, as `correct_answers` does, of one model, or of the mean logits of several.

    With a private network they are of the pair, and a last row is general, of the private network alone.
    """
    answers, target = mean_logits(learner, models), partial(correct_answers, carried=carried, deciding=deciding)
    if private is None:
        return target(answers, samples, class_counts=class_counts)
    alone = remembered(mean_logits(private.learner, [private.weights]))
    pair = target(pair_answers(answers, alone, private.share), samples, class_counts=class_counts)
    return torch.cat([pair, target(alone, samples, class_counts=[])])


def plain_answers(learner: Learner, weights: Weights, samples: Samples) -> Tensor:
    """Return the correct answers per class of a model whose logits are taken as they are, shape (classes,)."""
    return correct_after(*_logits(learner, learner.model(weights), samples), torch.zeros(1, learner.classes))[0]


def held_out_accuracies(
    scenario: Scenario, folder: Path, runtime: Runtime, on_evaluation: Callable[[int, int], None]
) -> dict[str, list[HeldOutAccuracy]]:
    """Return, by entity, the accuracies on the held-out test set of the model deployed at the end of each round.

    In rounds of earlier versions, which chose none, it is the round's own model.

    `on_evaluation` is called with the number of models evaluated so far, and of all.

    The first and the last round, which results consist of, are evaluated on the whole set. The rounds between only
    draw a curve and are evaluated on a part: with few training samples the whole would cost as much as the training.
    """
    keep_freed_memory()
    torch.set_num_threads(available_cores())  # the entities are done; every core is free
    whole, part = (HeldOut.of(each, scenario.task.classes) for each in (scenario.held_out, interim_part(scenario)))
    last, deciding = scenario.settings.num_rounds, deciding_part(scenario)
    total = last * len(scenario.private)
    on_evaluation(0, total)
    view = RunView.of(read_events(folder / FILE_NAME), rounds=last)
    accuracies: dict[str, list[HeldOutAccuracy]] = {}
    for index in range(len(scenario.private)):
        own_learner, found = make_private_learner(scenario, index, runtime), accuracies.setdefault(str(index), [])
        counts = scenario.class_counts(index)
        carried = carried_prior(scenario.strategy.local_phase(), counts)
        for round in range(1, last + 1):
            held_out = whole if round in (1, last) else part
            home, deployed = entity_folder(folder, index), view.entity(str(index)).deployed.get(round)
            name = None if deployed is None else deployed.checkpoint
            learner, private = own_learner, None
            if deployed is not None and deployed.private is not None and deployed.share is not None:
                learner = make_learner(scenario, index, runtime)  # of the proxy
                own_weights = stored_weights(home / deployed.private, own_learner.architecture)
                private = PrivatePart(learner=own_learner, weights=own_weights, share=deployed.share)
            weights = stored_weights(round_path(home, round) if name is None else home / name, learner.architecture)
            general, own, *alone = deployed_answers(
                learner,
                [weights],
                held_out.samples,
                private=private,
                carried=carried,
                class_counts=[counts],
                deciding=deciding,
            ).tolist()
            if deployed is not None and deployed.personal is not None:
                personal = stored_weights(home / deployed.personal, learner.architecture)
                own = plain_answers(learner, personal, held_out.samples).tolist()
            found.append(held_out.accuracies(general, own, counts, *alone))
            on_evaluation(index * last + round, total)
    return accuracies


def stored_weights(path: Path, architecture: Architecture) -> Weights:
    """Return the weights at the end of a round. Raises CorruptKnowledgeError when the file is damaged."""
    try:
        return load(path.read_bytes(), architecture)
    except OSError as error:
        reason = error.strerror or "It cannot be read"
    except KnowledgeError as error:
        reason = error.message.rstrip(".")
    raise CorruptKnowledgeError(f"{path} cannot be used: {reason}. Start a new run.")
