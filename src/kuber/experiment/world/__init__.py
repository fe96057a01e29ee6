"""Simulated conditions: speed, links, absences, attacks."""
