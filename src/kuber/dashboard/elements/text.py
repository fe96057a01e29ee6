"""Text in elements that say what it is: headings, paragraphs, facts; and moments."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from kuber.dashboard.elements.data_table import milliseconds


class Timestamp(Element, component="moment.js", esm={"kuber-clock": "clock"}):
    """A moment in the reader's zone."""

    def __init__(self, at: datetime) -> None:
        super().__init__()
        self._props["at"] = milliseconds(at)


def text_element(tag: str, text: str) -> TextElement:
    """An element of this tag with this text, which is never read as HTML."""
    return TextElement(tag=tag, text=text)


def anchor(text: str, href: str) -> TextElement:
    """A link."""
    made = text_element("a", text)
    made.props["href"] = href
    return made


@contextmanager
def section(title: str, *, level: int = 2) -> Iterator[Element]:
    """A part of a page with its heading."""
    with Element("section") as part:
        heading = text_element(f"h{level}", title)
        part.props["aria-labelledby"] = heading.html_id
        yield part


@contextmanager
def facts() -> Iterator[None]:
    """A list of facts; `fact` inside."""
    with Element("dl").classes("k-facts"):
        yield


@contextmanager
def fact(name: str, *, whole: bool = False) -> Iterator[Element]:
    """One fact, whose value is made inside; with a `whole` line of its own, where it may be long."""
    with Element("div").classes("whole" if whole else ""):
        text_element("dt", name)
        with Element("dd") as value:
            yield value
