"""The ports of an entity: over HTTP, and in memory."""
