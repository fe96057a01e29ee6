"""Settings of an entity with a custom loop: what its owner passes in, checked and converted."""

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from torch import nn

from kuber.domain.address import is_host
from kuber.domain.entity_names import normalised
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import Architecture, Argument, CarriedPrior
from kuber.domain.strategy import Strategy
from kuber.domain.task import MAX_TEXT, Task
from kuber.domain.whole_numbers import counts_of, whole_number
from kuber.entity.hub.access import Approve, Counts
from kuber.entity.strategy_loader import missing_decision, strategy_named
from kuber.errors import KUberError, RequestRejectedError, SettingsError, first_line
from kuber.learning.onnx_model import OnnxModel
from kuber.wire.registry import ArchitectureBody

Publishing = Literal["auto", "ask", "never"] | Callable[[Evaluation, int], bool]

CONTROL_ROUNDS = 8  # in which a twin trains alone

PUBLISHING = ("auto", "ask", "never")


def approval(publishing: Publishing) -> Approve:
    """Return the function that is asked before each publication. Raises SettingsError naming `publishing`."""
    if callable(publishing):
        return _owner_decides(publishing)
    if publishing not in PUBLISHING:
        raise SettingsError(
            f"publishing is {publishing!r}; give one of {', '.join(PUBLISHING)}, or a function of an evaluation and "
            "a round."
        )
    if publishing == "ask":
        if not (sys.stdin and sys.stdin.isatty()):
            raise SettingsError('publishing="ask" asks at the terminal, and this process has none.')
        return _ask
    return lambda evaluation, round: publishing == "auto"


def check_name(name: Any) -> str:
    """Return the name of an entity. Raises SettingsError naming `name` unless a registry can take it."""
    if not isinstance(name, str):
        raise SettingsError(f"name is a {_kind(name)}; give a text.")
    try:
        normalised(name)
    except RequestRejectedError:
        raise SettingsError(
            f"name is {name[:50]!r}; give 1 to {MAX_TEXT} printable characters that can be seen."
        ) from None
    return str(name)


def check_model(model: Any, argument: str = "model") -> nn.Module:
    """Return the model. Raises SettingsError naming the argument unless it is a module that holds tensors."""
    if not isinstance(model, nn.Module):
        more = "; give an object, not its class" if isinstance(model, type) else ""
        raise SettingsError(f"{argument} is a {_kind(model)}, not a torch.nn.Module{more}.")
    if not isinstance(model, OnnxModel) and not any(True for _ in _tensors(model)):
        raise SettingsError(f"{argument} has no parameters; there is nothing to train or to publish.")
    return model


def check_task(task: Any) -> Task:
    """Return the task. Raises SettingsError naming `task` unless it is one."""
    if not isinstance(task, Task):
        raise SettingsError(f"task is a {_kind(task)}; give a kuber.Task.")
    return task


def check_strategy(strategy: Any) -> Strategy:
    """Return the strategy, by name or as it is. Raises SettingsError naming `strategy`."""
    if isinstance(strategy, str):
        return strategy_named(strategy)
    missing = missing_decision(strategy)
    if isinstance(strategy, type) or missing is not None:
        why = "give an object, not its class" if isinstance(strategy, type) else f"it has no {missing!r}"
        raise SettingsError(f"strategy is a {_kind(strategy)}: {why}; see docs/strategy.md.")
    made: Strategy = strategy
    return made


def check_callable(function: Any, argument: str, what: str) -> None:
    """Raise SettingsError naming the argument unless it is None or can be called."""
    if function is not None and not callable(function):
        raise SettingsError(f"{argument} is a {_kind(function)}; give {what}.")


def check_number(value: Any, argument: str, *, least: int = 0) -> int:
    """Return a whole number. Raises SettingsError naming the argument unless it is at least `least`."""
    number = whole_number(value)
    if number is None or number < least:
        raise SettingsError(f"{argument} is {value!r}; give a whole number, at least {least}.")
    return number


def check_seconds(value: Any, argument: str) -> float:
    """Return a time in seconds. Raises SettingsError naming the argument unless it is finite and at least 0."""
    try:
        seconds = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise SettingsError(f"{argument} is {value!r}; give a number of seconds, at least 0.")
    return seconds


def check_formats(formats: Any) -> tuple[str, ...] | None:
    """Return the formats to publish in, if given. Raises SettingsError naming `formats` unless they are a list."""
    if formats is None:
        return None
    if isinstance(formats, str) or not isinstance(formats, Iterable):
        raise SettingsError(f'formats is {formats!r}; give a list, such as ("weights", "onnx").')
    return tuple(formats)


def check_reports(reports: Any) -> bool:
    """Return whether to report to the registry. Raises SettingsError naming `reports` unless it is True or False."""
    if not isinstance(reports, bool):
        raise SettingsError(f"reports is {reports!r}; give True or False.")
    return reports


def check_hub(hub: Any, vault: Any, invitation: Any, ca: Any) -> None:
    """Raise SettingsError naming the argument unless these can be a hub and what is needed to reach it."""
    if isinstance(hub, str):
        _check_address(hub, "hub")
    elif not (isinstance(hub, tuple | list) and len(hub) == 2):
        raise SettingsError(f"hub is a {_kind(hub)}; give the registry's address, or a pair as kuber.memory_hub().")
    else:
        for port, what, method in zip(hub, ("registry", "vault"), ("register", "put"), strict=True):
            if not callable(getattr(port, method, None)):
                raise SettingsError(f"hub has a {_kind(port)} in the place of its {what}; see kuber.memory_hub().")
    if vault is not None:
        _check_address(vault, "vault")
    if invitation is not None and not (isinstance(invitation, str) and re.fullmatch(r"[!-~]+", invitation)):
        raise SettingsError(f"invitation is {invitation!r}; give the code, a text without spaces.")
    if ca is not None and not (isinstance(ca, str | Path) and Path(ca).expanduser().is_file()):
        raise SettingsError(f"ca is {str(ca)!r}; there is no such file of certificates.")


def check_architecture(architecture: Architecture) -> None:
    """Raise SettingsError naming the argument unless a record can hold this architecture."""
    try:
        ArchitectureBody.of(architecture)
    except RequestRejectedError as error:
        raise SettingsError(f"The architecture cannot be published: {error.message}") from None


def plain_arguments(arguments: Any, *, named: bool) -> dict[str, Argument] | None:
    """Return the arguments of a `named` architecture as plain values. Raises SettingsError naming `arguments`."""
    if arguments is None:
        return None
    if not named:
        raise SettingsError("arguments are those of a named architecture; give its name as architecture, too.")
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise SettingsError(f"arguments is {arguments!r}; give a dictionary of names and values.")
    return {name: _plain(value) for name, value in arguments.items()}


def control_rounds(value: Any, *, judged: Any, evaluate: Any) -> int:
    """Return the rounds of the control; 0 for none. Raises SettingsError naming `control`."""
    if value is False or value is None:
        return 0
    rounds = CONTROL_ROUNDS if value is True else check_number(value, "control", least=1)
    if evaluate is not None:
        raise SettingsError("control compares single answers, which evaluate does not return; give validation data.")
    if judged is not None:
        raise SettingsError("control has no copy of the module judged; leave out one of both.")
    return rounds


def carried_prior(value: Any, class_counts: Sequence[int] | None) -> CarriedPrior | None:
    """Return the prior that the logits carry; None if unknown. Raises SettingsError naming `carried_prior`."""
    if value is None:
        return "own" if class_counts is not None else None
    if value not in ("own", "uniform", "unknown"):
        raise SettingsError(f"carried_prior is {value!r}; give own, uniform or unknown.")
    if value == "own" and class_counts is None:
        raise SettingsError("carried_prior is own, the frequencies of the classes; give class_counts too.")
    return None if value == "unknown" else cast("CarriedPrior", value)


def whole_counts(class_counts: Any, task: Task) -> tuple[int, ...] | None:
    """Return the number of samples of each label, if given: a list, an array, or a dictionary by label.

    Raises SettingsError naming `class_counts` unless there is one whole number for each label.
    """
    if class_counts is None:
        return None
    if hasattr(class_counts, "to_dict") and not callable(getattr(class_counts, "index", len)):
        class_counts = class_counts.to_dict()  # a Series of pandas: in the order of its index, often by frequency
    if isinstance(class_counts, Mapping):
        class_counts = _by_label(class_counts, task)
    if isinstance(class_counts, str | bytes | Set) or not isinstance(class_counts, Iterable):
        raise SettingsError(f"class_counts is a {_kind(class_counts)}; give a list, one number for each label.")
    try:
        given = list(class_counts)
    except TypeError:  # a tensor of one number
        raise SettingsError("class_counts is a single number; give a list, one for each label.") from None
    if len(given) != task.classes:
        raise SettingsError(f"class_counts has {len(given)} numbers, but the task has {task.classes} labels.")
    counts = counts_of(given)
    if counts is None:
        raise SettingsError("class_counts must be whole numbers from 0, one for each label of the task.")
    return counts


def check_counts(counts: Counts) -> Counts:
    """Return how class counts are published. Raises SettingsError naming `counts`."""
    if counts is not None and counts not in ("exact", "rounded"):
        raise SettingsError(f'counts is {counts!r}; give "exact", "rounded" or None.')
    return counts


def check_restores(restores: Sequence[object]) -> tuple[object, ...]:
    """Return the objects to restore with an undone phase. Raises SettingsError naming `restores`."""
    if not isinstance(restores, Sequence) or isinstance(restores, str):
        raise SettingsError(f"restores is a {type(restores).__name__}; give a list of objects, such as [scheduler].")
    for item in restores:
        if not (callable(getattr(item, "state_dict", None)) and callable(getattr(item, "load_state_dict", None))):
            raise SettingsError(
                f"restores has a {type(item).__name__}, which lacks state_dict or load_state_dict; give objects that "
                "have both."
            )
    return tuple(restores)


def _owner_decides(publishing: Callable[[Evaluation, int], bool]) -> Approve:
    try:
        inspect.signature(publishing).bind(None, 0)
    except TypeError:
        raise SettingsError(
            "publishing is a function that takes something else than an evaluation and a round."
        ) from None
    except ValueError:
        pass  # it has no signature, as some built-in functions

    def approve(evaluation: Evaluation, round: int) -> bool:
        try:
            answer = publishing(evaluation, round)
        except Exception as error:
            raise KUberError(
                f"The function publishing raised {type(error).__name__}: {first_line(error)}."
            ) from error
        decided = getattr(answer, "item", lambda: answer)()  # of numpy or torch
        if not isinstance(decided, bool):  # such as None, or the text "no"
            raise KUberError(f"The function publishing returned a {_kind(answer)}; return True or False.")
        return decided

    return approve


def _ask(evaluation: Evaluation, round: int) -> bool:
    model = f"round {round}" if round else "the initial checkpoint"
    try:
        answer = input(f"Publish {model}, with {evaluation.accuracy:.1%} on the validation data? [y/N]: ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _tensors(model: nn.Module) -> Iterable[object]:
    yield from model.parameters()
    yield from model.buffers()


def _check_address(address: Any, argument: str) -> None:
    if not isinstance(address, str) or not re.match(r"https?://[^/\s]", address) or not _has_host(address):
        raise SettingsError(
            f"{argument} is {address!r}, which is not the address of a service; give one such as http://127.0.0.1:5001."
        )


def _has_host(address: str) -> bool:
    """Return whether an address has a host and a port that are possible."""
    try:
        parts = urlsplit(address)
        return is_host(parts.hostname or "") and parts.port != 0
    except ValueError:  # a port that is no number, or too large
        return False


def _by_label(counts: Mapping[Any, Any], task: Task) -> list[Any]:
    """Return the counts in the order of the labels; keys are labels or, if none is one, their places."""
    named = {str(key): count for key, count in counts.items()}
    if not named.keys() & set(task.labels):
        places = [whole_number(key) for key in counts]
        if all(place is not None and 0 <= place < task.classes for place in places):
            named = {task.labels[place or 0]: count for place, count in zip(places, counts.values(), strict=True)}
    unknown = [key for key in named if key not in task.labels]
    if unknown:
        raise SettingsError(f"class_counts has {unknown[0]!r}, which is not a label of the task.")
    return [named.get(label, 0) for label in task.labels]


def _plain(value: Any) -> Argument:
    """Return a number of numpy or torch as a plain one, and a list of whole numbers as a tuple."""
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = value.tolist()
    made: Argument = tuple(map(_plain, value)) if isinstance(value, list | tuple) else value  # type: ignore[arg-type]
    return made


def _kind(value: object) -> str:
    return f"class {value.__name__}" if isinstance(value, type) else type(value).__name__
