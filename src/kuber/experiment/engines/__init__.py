"""Engines: where the work steps of a simulation are executed, one engine per module."""

from kuber.experiment.engines.base import THREADS, Engine
from kuber.experiment.engines.factory import EngineConfig, engine_config, open_engine
from kuber.experiment.engines.inline import InlineEngine

__all__ = ["THREADS", "Engine", "EngineConfig", "InlineEngine", "engine_config", "open_engine"]
