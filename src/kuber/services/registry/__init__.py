"""The registry: metadata of knowledge, members, events."""
