"""The console of tables and live views: as in `kuber.cli.terminal`, no text of others controls the terminal."""

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from kuber.domain.printable_text import printable

HIDDEN = "\N{REPLACEMENT CHARACTER}"  # as wide as the layout has reckoned, where an escape would be wider


class Console(rich.console.Console):
    """Rich's console, which shows escapes of characters that are not printable."""

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
