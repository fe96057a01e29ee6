"""One flag for each setting, made from the settings themselves."""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import typer
from pydantic.fields import FieldInfo

from kuber.errors import SettingsError
from kuber.settings import PREFIX, PRESETS, Settings, load

Ca = Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="Certificates to trust; else the system's.")]
SHORTER = {"num_entities": ("--entities",), "num_rounds": ("--rounds",), "dirichlet_alpha": ("--alpha",)}


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `--config`, `--preset` and a flag for each named setting (all of them by default).

    The command is called with `settings`, the loaded Settings, or None when it is told to `resume`: what goes on
    has its settings already. Values reach pydantic as text, so that a wrong one gets the same sentence from a
    flag, a variable or a file.
    """
    chosen = names or tuple(Settings.model_fields)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(*, config: Path | None, preset: str | None, **given: Any) -> None:
            flags = {name: given.pop(name) for name in chosen}
            if given.get("resume") is None:
                command(settings=load(flags, preset=preset, file=config), **given)
                return
            if config or preset or any(value is not None for value in flags.values()):
                raise SettingsError("--resume goes on with the settings it began with; give no others with it.")
            command(settings=None, **given)

        own = inspect.signature(command).parameters
        parameters = [own[name] for name in own if name != "settings"]
        parameters += [_flag(name, Settings.model_fields[name]) for name in chosen]
        parameters.append(
            _option(
                "config", Path | None, "--config", help="Settings file (TOML); else ./kuber.toml.", metavar="FILE"
            )
        )
        presets = ", ".join(PRESETS)
        parameters.append(
            _option("preset", str | None, "--preset", help=f"A set of settings by name: {presets}.", metavar="NAME")
        )
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    default = "" if field.default is None else f" (default: {field.default})"
    return _option(
        name,
        str | None,
        f"--{name.replace('_', '-')}",
        *SHORTER.get(name, ()),
        help=f"{field.description}{default}",
        metavar=_metavar(field.annotation),
        rich_help_panel=f"Settings (also in kuber.toml, or as {PREFIX}NAME)",
    )


def _metavar(annotation: Any) -> str:
    """What a person types: one of the choices, or a kind of value."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    if isinstance(kinds[0], str):
        return "|".join(kinds)
    return {int: "N", float: "X", str: "TEXT"}.get(kinds[0], "PATH")


def _option(name: str, annotation: Any, *declarations: str, **details: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[annotation, typer.Option(*declarations, **details)],
    )
