"""A command-line flag for each setting, generated from the Settings model."""

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, cast, get_args

import typer
from pydantic.fields import FieldInfo

from kuber.errors import SettingsError
from kuber.setting_effects import Command, settings_without_effect
from kuber.settings import FILE_NAME, PREFIX, PRESETS, Settings, load

log = logging.getLogger("kuber")

Ca = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="Trusted certificates (PEM), instead of the system's.")
]
SETTINGS_NOTE = (
    f"The options after --preset are settings; {FILE_NAME} and variables such as {PREFIX}SEED set them too."
)
SHORTER = {"num_entities": ("--entities",), "num_rounds": ("--rounds",), "dirichlet_alpha": ("--alpha",)}


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `--config`, `--preset` and a flag for each named setting (all of them by default).

    The command is called with `settings`: the loaded Settings, or None with `--resume`, as the run's folder holds its
    settings. Values reach pydantic as text, so that a wrong value gives the same message from a flag, a variable or a
    file.
    """
    chosen = names or tuple(Settings.model_fields)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(*, config: Path | None, preset: str | None, **given: Any) -> None:
            flags = {name: given.pop(name) for name in chosen}
            if given.get("resume") is None:
                settings = load(flags, preset=preset, file=config)
                if command.__name__ in get_args(Command):
                    for sentence in settings_without_effect(settings, cast(Command, command.__name__)):
                        log.warning(sentence)
                command(settings=settings, **given)
                return
            if config or preset or any(value is not None for value in flags.values()):
                raise SettingsError(
                    "--resume uses the settings that the run was started with; give no others with it."
                )
            command(settings=None, **given)

        own = inspect.signature(command).parameters
        parameters = [own[name] for name in own if name != "settings"]
        config_help = f"Settings file, instead of ./{FILE_NAME}."
        preset_help = f"Named set of settings: {', '.join(PRESETS)}."
        parameters += [
            _option("config", Path | None, "--config", metavar="FILE", help=config_help),
            _option("preset", str | None, "--preset", metavar="NAME", help=preset_help),
            *(_flag(name, Settings.model_fields[name]) for name in chosen),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = command.__name__, f"{command.__doc__}\n\n{SETTINGS_NOTE}"
        return run

    return decorate


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    text = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    default = "" if field.default is None else f" (default: {text})"
    return _option(
        name,
        str | None,
        f"--{name.replace('_', '-')}",
        *SHORTER.get(name, ()),
        help=f"{field.description}{default}",
        metavar=_metavar(field.annotation),
    )


def _metavar(annotation: Any) -> str:
    """Return the kind of value that a person types. Choices are listed in the help text: here they would widen it."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    if isinstance(kinds[0], str):
        return "NAME"
    return {int: "N", float: "X", str: "TEXT", bool: "true|false"}.get(kinds[0], "PATH")


def _option(name: str, annotation: Any, *declarations: str, **details: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[annotation, typer.Option(*declarations, **details)],
    )
