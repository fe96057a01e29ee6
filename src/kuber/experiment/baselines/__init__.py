"""Baselines: the methods that strategies are compared with."""
