"""Comparisons of strategies and baselines on the same partitions and seeds."""
