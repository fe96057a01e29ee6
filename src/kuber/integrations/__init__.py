"""Integrations with trainers and experiment trackers: one module and one extra for each."""
