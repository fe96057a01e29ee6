"""Engines: where the work steps of a simulation are executed, one engine per module."""
