"""What an entity does at its hub: join, publish, discover, pull."""
