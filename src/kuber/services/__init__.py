"""The registry and the vault, each a process of its own; neither loads torch."""
