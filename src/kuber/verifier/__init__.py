"""Re-evaluation of published models: the only part of the hub that loads torch."""
