"""Fixtures of the tests of the dashboard."""

from .browser import browser, visit
from .site import quiet, world

__all__ = ["browser", "quiet", "visit", "world"]
