"""Engines: where the work steps of a simulation are done, one engine a module."""

from kuber.experiment.engines.base import THREADS, Engine
from kuber.experiment.engines.factory import Choice, chosen, engine
from kuber.experiment.engines.inline import Inline

__all__ = ["THREADS", "Choice", "Engine", "Inline", "chosen", "engine"]
