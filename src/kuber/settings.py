"""All settings, typed: TOML file < KUBER_* variables < flags. Unknown keys are refused."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from kuber.errors import SettingsError

FILE_NAME = "kuber.toml"
PREFIX = "KUBER_"
NO_HOME = "this user has no home directory; set the variable HOME, or give a full path"


def expand_home(path: Path) -> Path:
    """Return the path with its ~ or ~user replaced. Raises SettingsError when there is no such home directory."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise SettingsError(f"The path {path} cannot be used: {NO_HOME}.") from None


def _expanded(path: Path) -> Path:
    try:
        return expand_home(path)
    except SettingsError:
        raise ValueError(NO_HOME) from None


Folder = Annotated[Path, AfterValidator(_expanded)]


class Settings(BaseModel):
    """Settings of a run or an entity, as `load` reads them."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    _from_preset: frozenset[str] = PrivateAttr(frozenset())
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    # the experiment
    num_entities: int = Field(4, ge=1, description="Number of entities that the training data are split over.")
    num_rounds: int = Field(20, ge=1, description="Rounds that each entity trains.")
    strategy: str = Field(
        "kuber",
        description="Strategy of the entities: kuber, exchange, merge, vanilla (which trusts claims), local, "
        "local-balanced, an installed one, or module:name.",
    )
    dataset: str = Field(
        "cifar10",
        description="Data set: cifar10, fashion-mnist, digits, a path to an .npz file with arrays x and y, or an "
        "installed one.",
    )
    train_size: int | None = Field(None, ge=1, description="Training samples to use; all if not set.")
    common_test_size: int = Field(
        2000,
        ge=1,
        description="Samples in the common test set; if not set and the test set has under 10,000, a fifth of it.",
    )
    partition: str = Field(
        "dirichlet",
        description="Partition of the training data: dirichlet, shards, iid, quantity, mixture, or an installed one.",
    )
    classes_per_entity: int = Field(2, ge=1, description="Classes of each entity with the partition shards.")
    dirichlet_alpha: float = Field(
        0.5, gt=0, le=1e6, description="Dirichlet concentration: smaller values give more skewed data."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed for the partition, initial weights and batch order.")

    # learning
    architecture: str = Field(
        "cnn",
        description="Network: cnn, lenet, resnet20, mlp, or an installed one; several, separated by commas, are "
        "assigned to the entities in turn.",
    )
    proxy_architecture: str = Field(
        "auto",
        description="Network of the proxies that entities with other networks exchange: auto (none if all have one "
        "network, else cnn, or mlp where cnn does not take the samples), none, or one of the networks.",
    )
    local_epochs: int = Field(5, ge=1, description="Epochs of training on private data in each round.")
    learning_rate: float = Field(0.01, gt=0, le=10, description="Learning rate of SGD; with a schedule, its peak.")
    learning_rate_schedule: Literal["constant", "cosine"] = Field(
        "constant",
        description="Course of the learning rate: constant, or cosine, which falls from the peak to 0 over the "
        "entity's own rounds.",
    )
    weight_decay: float = Field(5e-4, ge=0, le=1, description="Weight decay of SGD.")
    batch_size: int = Field(64, ge=2, description="Samples in each training batch.")
    kd_temperature: float = Field(4.0, gt=0, le=1000, description="Temperature of the softmax in distillation.")
    kd_alpha: float = Field(
        0.5, ge=0, le=1, description="Weight of the cross-entropy in distillation; the rest weighs the teacher."
    )
    kd_epochs: int = Field(3, ge=1, description="Epochs of each distillation.")

    # NIID-Bench (arXiv 2102.02079) finds 0.01 best on CIFAR-10 among the candidates of the FedProx paper.
    fedprox_mu: float = Field(0.01, ge=0, le=1000, description="Weight of the proximal term in FedProx.")

    # The usual 0.9 is for hundreds of rounds and more; in few, such as 8, so long a memory cannot settle.
    server_momentum: float = Field(
        0.4, ge=0, lt=1, description="Momentum of the global model in FedAvgM; 0.4 suits few rounds, 0 is FedAvg."
    )

    # the simulation
    speed_ratio: float = Field(
        1.0, ge=1, le=1e6, description="Largest ratio between the speeds of two simulated entities; 1: equal speeds."
    )
    pace: Literal["rounds", "samples"] = Field(
        "rounds",
        description="Work that simulated entities of equal speed finish in the same time: a local phase of any size "
        "(rounds), or a number of samples (samples).",
    )
    world: str | None = Field(
        None,
        description="Simulated conditions: stragglers, churn, crashes, late-joiners, flash-crowd, partitioned, "
        "poisoned, or a path to a .toml file.",
    )
    public_dataset: str | None = Field(
        None, description="Data set that all entities share without its labels; fedmd needs one."
    )
    public_size: int = Field(5000, ge=1, description="Samples of the public data set to use, at most.")

    # the machine
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Device to compute on: auto (a GPU where there is one), cpu, cuda or mps."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Number format of the forward pass in training: auto (bfloat16 where it is faster), float32 or "
        "bfloat16.",
    )
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of each entity; 0: share the cores among the entities."
    )
    data_dir: Folder | None = Field(None, description="Folder with the data set's original files.")
    cache_dir: Folder = Field(Path("~/.cache/kuber"), description="Folder for decoded data sets.")
    runs_dir: Folder = Field(Path("runs"), description="Folder in which run folders are created.")

    # trust: what an entity learns from, and what others learn of it
    verified_only: bool = Field(False, description="Learn only from knowledge that the hub has verified.")
    publishing: Literal["auto", "ask", "never"] = Field(
        "auto", description="When to publish: as the strategy decides (auto), after asking you (ask), or never."
    )
    transfer: Literal["float32", "bfloat16"] = Field(
        "float32", description="Number format of published weights: float32, or bfloat16 for half the size."
    )
    cache_mebibytes: int = Field(
        1024, ge=0, description="Disk space of `kuber entity` for pulled models, in MiB; 0: keep none."
    )
    reports: bool = Field(
        True, description="Report each round's evaluation, and why teachers were chosen, to the registry."
    )

    # the services
    host: str = Field("127.0.0.1", description="Address that registry and vault listen on.")
    registry_port: int = Field(0, ge=0, le=65535, description="Port of the run's registry; 0: any free port.")
    vault_port: int = Field(0, ge=0, le=65535, description="Port of the run's vault; 0: any free port.")

    @property
    def architectures(self) -> tuple[str, ...]:
        """Names of the networks, which are assigned to the entities in turn."""
        return tuple(name.strip() for name in self.architecture.split(","))

    @property
    def sources(self) -> dict[str, str]:
        """Settings that the user gave, with how: --seed, KUBER_SEED, or seed in kuber.toml."""
        return dict(self._sources)

    def is_from_preset(self, name: str) -> bool:
        """Whether the preset, not the user, gave this setting. A preset's size is an upper bound."""
        return name in self._from_preset

    @model_validator(mode="after")
    def _check_ports(self) -> "Settings":
        if self.registry_port and self.registry_port == self.vault_port:
            raise ValueError("registry_port and vault_port must differ")
        return self


# The experiment that comparisons report: fixed, so that tables of different days can be compared.
_STUDY: dict[str, Any] = {
    "dataset": "cifar10",
    "train_size": 16000,
    "architecture": "cnn",
    "num_entities": 4,
    "partition": "dirichlet",
    "dirichlet_alpha": 0.5,
}

# At a constant rate the last model is a noisy one, and what averages models looks better than it is.
_COSINE: dict[str, Any] = {"learning_rate": 0.08, "learning_rate_schedule": "cosine"}
_SHORT: dict[str, Any] = _STUDY | {"num_rounds": 8, "local_epochs": 2}
_LONG: dict[str, Any] = _STUDY | {"num_rounds": 20, "local_epochs": 5}

# `quick` is the same system on less work: small enough to show exchanges within minutes on two cores.
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"train_size": 8000, "num_rounds": 8, "local_epochs": 2, "kd_epochs": 2} | _COSINE,
    "study": _SHORT | _COSINE,
    "study-long": _LONG | _COSINE,
    "study-constant": _SHORT,
    "study-long-constant": _LONG,
}


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Return the settings from preset, TOML file, `KUBER_*` variables and flags; later sources win.

    Reads `file`, or ./kuber.toml if there is one. Flags that are None were not given.
    Raises SettingsError for anything unknown or impossible.
    """
    if preset is not None and preset not in PRESETS:
        raise SettingsError(f"There is no preset {preset!r}; choose from: {', '.join(PRESETS)}.")
    preset_values = PRESETS[preset] if preset else {}
    given = _from_file(file)
    sources = {name: f"{name} in {file or FILE_NAME}" for name in given}
    variables = {
        name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if name.startswith(PREFIX)
    }
    named = {key: value for key, value in (flags or {}).items() if value is not None}
    given |= variables | named
    sources |= {name: f"{PREFIX}{name.upper()}" for name in variables}
    sources |= {name: f"--{name.replace('_', '-')}" for name in named}
    try:
        settings = Settings(**(preset_values | given))
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None
    settings._sources = sources
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


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"There is no setting {name!r}; `kuber run --help` lists them."
    reason = first["msg"].removeprefix("Value error, ")
    if not name:
        return f"These settings contradict each other: {reason}."
    given = str(first["input"]) if isinstance(first["input"], Path) else first["input"]
    return f"The setting {name} cannot be {given!r}: {reason[0].lower()}{reason[1:]}."
