"""HTML pages that need nothing beside them: the frame that reports are set in."""

import base64
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kuber.views import duration, percent, points, size


def page(template: str, *, images: Mapping[str, bytes], settings: Mapping[str, Any], **told: Any) -> str:
    """The page that a template of this package makes of PNG `images`, of `settings`, and of what else is told."""
    environment = Environment(
        loader=PackageLoader("kuber.experiment.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, points=points, size=size, duration=duration, value=_value)
    encoded = {name: base64.b64encode(image).decode("ascii") for name, image in images.items()}
    return environment.get_template(template).render(images=encoded, settings=settings, **told)


def _value(setting: Any) -> str:
    """A setting as a settings file writes it."""
    if setting is None:
        return "not given"
    return str(setting).lower() if isinstance(setting, bool) else str(setting)
