"""Exchange with the hub: join, publish, discover, pull."""
