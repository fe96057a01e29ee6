"""Packages of optional extras: an error that names the extra where one is missing."""

from importlib.util import find_spec

from kuber.errors import SettingsError

# What the code of an extra imports. A test compares them with pyproject.toml.
PACKAGES = {
    "dashboard": ("nicegui",),
    "hub": ("fastapi", "uvicorn", "httptools", "sqlalchemy", "alembic", "limits", "prometheus_client"),
    "plots": ("matplotlib", "jinja2"),
    "simulator": ("greenlet",),
    "socks": ("socksio",),
}


def require(purpose: str, *extras: str) -> None:
    """Raise SettingsError when a package of these extras is not installed; `purpose` begins its sentence."""
    lacking = {extra: [name for name in PACKAGES[extra] if find_spec(name) is None] for extra in extras}
    missing = [name for names in lacking.values() for name in names]
    if missing:
        named = ",".join(extra for extra, names in lacking.items() if names)
        raise SettingsError(f"{purpose} needs {' and '.join(missing)}, not installed: pip install 'kuber[{named}]'.")
