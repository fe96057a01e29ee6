"""Simulation of entities in memory, on a virtual clock."""
