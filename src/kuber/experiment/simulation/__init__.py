"""`kuber simulate`: entities in memory, on a virtual clock."""
