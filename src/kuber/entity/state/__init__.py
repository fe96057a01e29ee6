"""What an entity keeps on disk: checkpoint, event log, pending messages, cached blobs."""
