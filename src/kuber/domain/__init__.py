"""The vocabulary of KUber as frozen values and pure functions; standard library only."""
