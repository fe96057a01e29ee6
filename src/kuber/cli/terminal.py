"""The edge to the terminal: what a command prints passes here, and no text of others controls the terminal."""

import sys

from kuber.domain.printable_text import printable


def say(text: object = "") -> None:
    """Print one line to standard output."""
    print(printable(str(text)), flush=True)


def say_error(text: object) -> None:
    """Print one line to standard error."""
    print(printable(str(text)), file=sys.stderr, flush=True)
