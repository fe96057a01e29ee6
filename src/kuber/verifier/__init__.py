"""The hub's re-evaluation of what is published: the only part of the hub that loads torch."""
