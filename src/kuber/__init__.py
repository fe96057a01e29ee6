"""KUber: knowledge exchange between independently trained deep networks."""

from importlib.metadata import version

__version__ = version("kuber")
