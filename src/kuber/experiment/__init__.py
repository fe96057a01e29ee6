"""Experiments: scenarios, runs, their results and their pictures."""
