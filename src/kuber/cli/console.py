"""The console of tables and live views: as in `kuber.cli.terminal`, no text of others controls the terminal."""

import re
from collections.abc import Iterable
from typing import Any

import rich.console
from rich.cells import cell_len
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from kuber.domain.printable_text import printable

WIDEST = 120  # columns of a line of progress, on terminals that are wider and in files
_INDENT = "    "  # of the further lines of a folded one
_CLAUSES = re.compile(r"(?<=;) ")  # the ends of clauses
HIDDEN = "\N{REPLACEMENT CHARACTER}"  # as wide as the layout has reckoned, where an escape would be wider


class Console(rich.console.Console):
    """Rich's console, which shows escapes of characters that are not printable."""

    def print_folded(self, text: str) -> None:
        """Print a line of progress, folded between words; in a file each of its lines is at most `WIDEST` wide."""
        width = min(self.width, WIDEST) if self.is_terminal else WIDEST
        for line in folded(printable(text), width):
            self.print(line, markup=False, highlight=False, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text as rich does, with escapes."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what rich yields; in texts that were made without `render_str`, characters are replaced."""
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text.isprintable() or text == "\n":
                yield segment
            else:
                shown = "".join(c if c.isprintable() or c == "\n" else HIDDEN for c in text)
                yield Segment(shown, segment.style)


def folded(text: str, width: int) -> list[str]:
    """Fold a line after a semicolon, or else between words, and indent the further lines.

    A longer word stays whole, so that it can be copied.
    """
    lines = [""]

    def add(part: str) -> bool:
        """Add a part to the last line if it fits, or to an empty one."""
        is_empty = not lines[-1].strip()
        longer = f"{lines[-1]}{part}" if is_empty else f"{lines[-1]} {part}"
        if cell_len(longer) > width and not (is_empty and " " not in part):
            return False
        lines[-1] = longer
        return True

    def begin() -> None:
        if lines[-1].strip():
            lines[-1] = lines[-1].rstrip()
            lines.append(_INDENT)

    for clause in _CLAUSES.split(text.rstrip()):
        if add(clause):
            continue
        begin()
        if add(clause):
            continue
        for word in clause.split(" "):
            if not add(word):
                begin()
                add(word)
    return lines
