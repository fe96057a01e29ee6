"""One entity: its loop of decide and work steps, its checkpoints and its event log."""
