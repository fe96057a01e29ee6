"""State of an entity: checkpoint, event log, queued messages, blobs."""
