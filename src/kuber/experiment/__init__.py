"""Experiments: scenarios, runs, simulations, comparisons, results and plots."""
