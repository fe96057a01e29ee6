"""`kuber run` and `kuber entity`: entities in processes, against real services."""
