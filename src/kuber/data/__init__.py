"""Data sets, their partition over entities, and batches of samples."""
