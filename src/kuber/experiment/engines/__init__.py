"""Engines: where the work steps of a simulation are done, one engine a module."""

from kuber.experiment.engines.inline import Inline
from kuber.experiment.engines.protocol import THREADS, Engine
from kuber.experiment.engines.starting import Choice, chosen, engine

__all__ = ["THREADS", "Choice", "Engine", "Inline", "chosen", "engine"]
