"""KUber inside the loops and the tools of others: one module for each, each an extra of its own."""
