"""One module for each page; each has a function that builds it and keeps it up to date."""
