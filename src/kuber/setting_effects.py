"""Effects of settings: the commands and conditions under which each has one. Those given in vain are named."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from kuber.settings import PREFIX, Settings

Command = Literal["run", "entity", "simulate"]
Condition = Callable[[Settings], str | None]  # -> reason why the setting has no effect beside the others; None if any

_TRAINING_ALONE = {"local", "local-balanced"}
_NOT_DISTILLING = {"kuber", "exchange", "merge", *_TRAINING_ALONE}
_WITHOUT_PROXIES = {"exchange", "merge", "vanilla", *_TRAINING_ALONE}
_NOT_DRAWING = {"iid", "shards"}
_NOT_BY_CLASS = {"dirichlet", "iid", "quantity", "mixture"}
_NOT_FROM_FILES = {"digits"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """Commands in which a setting has an effect, why it has none in the others, and a condition."""

    commands: tuple[Command, ...] = ("run", "entity", "simulate")
    otherwise: str = ""
    condition: Condition = lambda settings: None


def _not_with_strategies(names: Collection[str], reason: str) -> Effect:
    def condition(settings: Settings) -> str | None:
        return f"the strategy {settings.strategy} {reason}" if settings.strategy in names else None

    return Effect(condition=condition)


def _not_with_partitions(names: Collection[str], reason: str) -> Effect:
    def condition(settings: Settings) -> str | None:
        return f"the partition {settings.partition} {reason}" if settings.partition in names else None

    return Effect(condition=condition)


def _data_folder(settings: Settings) -> str | None:
    return f"the data set {settings.dataset} is read from no folder" if settings.dataset in _NOT_FROM_FILES else None


def _public_size(settings: Settings) -> str | None:
    return "there is no public_dataset" if settings.public_dataset is None else None


_OPTIONS = ("registry", "identity", "preset", "resume")  # of `kuber entity`, which are no arguments of kuber.Entity
_ALWAYS = Effect()
_BASELINES = "only baselines of `kuber compare` use it"
_SIMULATED = "only `kuber simulate` and `kuber compare` use it"
_OWN_HUB = "only `kuber run` starts a hub"
_DISTILLATION = _not_with_strategies(_NOT_DISTILLING, "has no epochs of distillation")
_EXCHANGE = _not_with_strategies(_TRAINING_ALONE, "exchanges nothing")

EFFECTS: Mapping[str, Effect] = {
    "num_entities": _ALWAYS,
    "num_rounds": _ALWAYS,
    "strategy": _ALWAYS,
    "dataset": _ALWAYS,
    "train_size": _ALWAYS,
    "common_test_size": _ALWAYS,
    "partition": _ALWAYS,
    "classes_per_entity": _not_with_partitions(_NOT_BY_CLASS, "fixes no number of classes"),
    "dirichlet_alpha": _not_with_partitions(_NOT_DRAWING, "draws from no Dirichlet distribution"),
    "seed": _ALWAYS,
    "architecture": _ALWAYS,
    "proxy_architecture": _not_with_strategies(_WITHOUT_PROXIES, "has no proxies"),
    "local_epochs": _ALWAYS,
    "learning_rate": _ALWAYS,
    "learning_rate_schedule": _ALWAYS,
    "weight_decay": _ALWAYS,
    "batch_size": _ALWAYS,
    "kd_temperature": _DISTILLATION,
    "kd_alpha": _DISTILLATION,
    "kd_epochs": _DISTILLATION,
    "fedprox_mu": Effect(commands=(), otherwise=_BASELINES),
    "server_momentum": Effect(commands=(), otherwise=_BASELINES),
    "speed_ratio": Effect(commands=("simulate",), otherwise=_SIMULATED),
    "pace": Effect(commands=("simulate",), otherwise=_SIMULATED),
    "world": Effect(commands=("simulate",), otherwise=_SIMULATED),
    "public_dataset": Effect(commands=(), otherwise=_BASELINES),
    "public_size": Effect(commands=(), otherwise=_BASELINES, condition=_public_size),
    "device": _ALWAYS,
    "precision": _ALWAYS,
    "threads": Effect(commands=("run", "entity"), otherwise="the engine of a simulation decides it (--workers)"),
    "data_dir": Effect(condition=_data_folder),
    "cache_dir": _ALWAYS,
    "runs_dir": _ALWAYS,
    "verified_only": _EXCHANGE,
    "publishing": _EXCHANGE,
    "transfer": _EXCHANGE,
    "cache_mebibytes": Effect(commands=("entity",), otherwise="only `kuber entity` keeps pulled models"),
    "reports": _ALWAYS,
    "host": Effect(commands=("run",), otherwise=_OWN_HUB),
    "registry_port": Effect(commands=("run",), otherwise=_OWN_HUB),
    "vault_port": Effect(commands=("run",), otherwise=_OWN_HUB),
}


def settings_without_effect(settings: Settings, command: Command) -> list[str]:
    """Return a sentence for each setting that was given, not by a preset, and has no effect on this command."""
    sentences = []
    for name, source in settings.sources.items():
        effect = EFFECTS[name]
        reason = effect.condition(settings) if command in effect.commands else effect.otherwise
        if reason is not None:
            sentences.append(f"The setting {source} has no effect on `kuber {command}`: {reason}.")
    return sentences


def variables_without_effect(arguments: Collection[str], environ: Mapping[str, str] = os.environ) -> str | None:
    """Return a sentence that names the variables which a `kuber.Entity` does not read, although they look so.

    Those are the ones named like a setting, an option of `kuber entity`, or one of these arguments; None if there are
    none.
    """
    known = {*Settings.model_fields, *arguments, *_OPTIONS}
    names = sorted(name for name in environ if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() in known)
    if not names:
        return None
    verb = "has" if len(names) == 1 else "have"
    return f"{', '.join(names)} {verb} no effect on kuber.Entity, which takes arguments, and no variables."
