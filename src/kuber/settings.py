"""Every setting, in one typed place: TOML file < KUBER_* variables < flags; unknown keys are refused."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from kuber.errors import SettingsError

FILE_NAME = "kuber.toml"
PREFIX = "KUBER_"


def _user_path(path: Path) -> Path:
    return path.expanduser()


Folder = Annotated[Path, AfterValidator(_user_path)]


class Settings(BaseModel):
    """What a run or an entity can be told. `load` makes one, or raises SettingsError."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    _from_preset: frozenset[str] = PrivateAttr(frozenset())

    # the experiment
    num_entities: int = Field(4, ge=1, description="How many entities share the data set.")
    num_rounds: int = Field(20, ge=1, description="Rounds of each entity.")
    strategy: str = Field(
        "kuber",
        description="How entities decide: kuber, exchange, merge, vanilla, local, local-balanced, an installed one, "
        "or module:name.",
    )
    dataset: str = Field(
        "cifar10",
        description="cifar10, fashion-mnist, digits, a path to an .npz of arrays x, y, or an installed one.",
    )
    train_size: int | None = Field(None, ge=1, description="Training images to use; all when not given.")
    common_test_size: int = Field(
        2000,
        ge=1,
        description="Samples of the common test set; by default a fifth of a test set smaller than 10,000.",
    )
    partition: str = Field(
        "dirichlet", description="How it is split: dirichlet, shards, iid, quantity, mixture, or an installed one."
    )
    classes_per_entity: int = Field(2, ge=1, description="Classes of each entity, in partition shards.")
    dirichlet_alpha: float = Field(
        0.5, gt=0, le=1e6, description="How alike the entities' data are; small: not at all."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of partition, initial weights and batches.")

    # learning
    architecture: str = Field(
        "cnn",
        description="The network: cnn, lenet, resnet20, mlp or an installed one; several, with commas, are given to "
        "entities in turn.",
    )
    local_epochs: int = Field(5, ge=1, description="Epochs on private data in each round.")
    learning_rate: float = Field(0.01, gt=0, le=10, description="Of SGD, constant.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="Of SGD: how strongly weights are pulled to zero.")
    batch_size: int = Field(64, ge=2, description="Samples of one step.")
    kd_temperature: float = Field(4.0, gt=0, le=1000, description="Softens teacher and student in distillation.")
    kd_alpha: float = Field(0.5, ge=0, le=1, description="Weight of cross-entropy; the rest weighs the teacher.")
    kd_epochs: int = Field(3, ge=1, description="Epochs of one distillation.")

    # Of the paper's candidates, 0.01 is the one that NIID-Bench (arXiv 2102.02079) finds best on CIFAR-10.
    fedprox_mu: float = Field(0.01, ge=0, le=1000, description="How strongly FedProx holds local phases back.")

    # the simulation
    speed_ratio: float = Field(
        1.0, ge=1, le=1e6, description="How many times as quick as the slowest a simulated entity may be."
    )
    pace: Literal["rounds", "samples"] = Field(
        "rounds", description="What takes simulated entities of one speed equally long: a local phase, or a sample."
    )
    world: str | None = Field(
        None,
        description="What befalls simulated entities: stragglers, churn, crashes, late-joiners, flash-crowd, "
        "partitioned, poisoned, or a path to a .toml.",
    )
    public_dataset: str | None = Field(None, description="Data set that all entities know, without its labels.")
    public_size: int = Field(5000, ge=1, description="Samples of it to use, at most.")

    # the machine
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to compute.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Of the forward pass in training.")
    threads: int = Field(0, ge=0, le=1024, description="Of one entity; 0 shares the cores among the entities.")
    data_dir: Folder | None = Field(None, description="Folder that holds the data set's own files.")
    cache_dir: Folder = Field(Path("~/.cache/kuber"), description="Where decoded data sets are kept.")
    runs_dir: Folder = Field(Path("runs"), description="Where run folders are made.")

    # trust: what an entity learns from, and what others learn of it
    verified_only: bool = Field(False, description="Learn only from what the hub has verified.")
    publishing: Literal["auto", "ask", "never"] = Field(
        "auto", description="Publish as the strategy says, after asking a person, or never."
    )
    transfer: Literal["float32", "bfloat16"] = Field(
        "float32", description="What weights travel as: bfloat16 is half the bytes, and evaluated as sent."
    )
    cache_mebibytes: int = Field(
        1024, ge=0, description="Of pulled models that `kuber entity` keeps on its disk; 0: none."
    )
    reports: bool = Field(
        True, description="Tell the registry each round and its evaluation, and why teachers were chosen."
    )

    # the services
    host: str = Field("127.0.0.1", description="Address that registry and vault listen on.")
    registry_port: int = Field(0, ge=0, le=65535, description="Port of the run's registry; 0: any free one.")
    vault_port: int = Field(0, ge=0, le=65535, description="Port of the run's vault; 0: any free one.")

    @property
    def architectures(self) -> tuple[str, ...]:
        """The networks' names, to be given to the entities in turn."""
        return tuple(name.strip() for name in self.architecture.split(","))

    def is_from_preset(self, name: str) -> bool:
        """Whether the preset, not the user, gave this setting. A preset's size is an upper bound."""
        return name in self._from_preset

    @model_validator(mode="after")
    def _possible(self) -> "Settings":
        if self.registry_port and self.registry_port == self.vault_port:
            raise ValueError("registry_port and vault_port must differ")
        return self


# What comparisons are reported on: fixed, so that tables of different days are of the same experiment.
_STUDY: dict[str, Any] = {
    "dataset": "cifar10",
    "train_size": 16000,
    "architecture": "cnn",
    "num_entities": 4,
    "partition": "dirichlet",
    "dirichlet_alpha": 0.5,
}

# `quick` is the same system on less work: chosen so that shares and retrievals occur within minutes on two cores.
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"train_size": 8000, "num_rounds": 8, "local_epochs": 2, "kd_epochs": 2},
    "study": _STUDY | {"num_rounds": 8, "local_epochs": 2},
    "study-long": _STUDY | {"num_rounds": 20, "local_epochs": 5},
}


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings from preset, TOML file, `KUBER_*` variables and flags, the later ones winning.

    `file` is read when given, else ./kuber.toml where there is one. Flags that are None were not given.
    Raises SettingsError with one sentence on anything unknown or impossible.
    """
    if preset is not None and preset not in PRESETS:
        raise SettingsError(f"There is no preset {preset!r}; choose from: {', '.join(PRESETS)}.")
    preset_values = PRESETS[preset] if preset else {}
    given = _from_file(file) | _from_environ(environ)
    given |= {key: value for key, value in (flags or {}).items() if value is not None}
    try:
        settings = Settings(**(preset_values | given))
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None
    settings._from_preset = frozenset(preset_values.keys() - given.keys())
    return settings


def _from_file(file: Path | None) -> dict[str, Any]:
    path = file or Path(FILE_NAME)
    if file is None and not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The settings file {path} is not TOML: {error}.") from None


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    return {name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if name.startswith(PREFIX)}


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"There is no setting {name!r}; `kuber run --help` lists them."
    reason = first["msg"].removeprefix("Value error, ")
    if not name:
        return f"These settings contradict each other: {reason}."
    return f"The setting {name} cannot be {first['input']!r}: {reason[0].lower()}{reason[1:]}."
