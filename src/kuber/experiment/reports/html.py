"""Self-contained HTML pages, rendered from the templates of this package."""

import base64
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kuber.views.formatting import duration, percent, points, size


def page(template: str, *, images: Mapping[str, bytes], settings: Mapping[str, Any], **context: Any) -> str:
    """Render a template of this package with PNG `images`, `settings` and other variables."""
    environment = Environment(
        loader=PackageLoader("kuber.experiment.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, points=points, size=size, duration=duration, value=_value, known=_known
    )
    encoded = {name: base64.b64encode(image).decode("ascii") for name, image in images.items()}
    return environment.get_template(template).render(images=encoded, settings=settings, **context)


def _known(accuracy: float | None) -> str:
    """Format an accuracy that older results lack."""
    return "-" if accuracy is None else percent(accuracy)


def _value(setting: Any) -> str:
    """Format a setting as in a settings file."""
    if setting is None:
        return "not given"
    return str(setting).lower() if isinstance(setting, bool) else str(setting)
