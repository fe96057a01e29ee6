"""Web pages of a hub: entities, knowledge, lineage and runs, kept up to date by the registry's events."""
