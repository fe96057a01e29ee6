"""Text in semantic elements: headings, links, facts, times."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from kuber.dashboard.elements.data_table import milliseconds


class Timestamp(Element, component="moment.js", esm={"kuber-clock": "clock"}):
    """A time in the browser's time zone."""

    def __init__(self, at: datetime) -> None:
        super().__init__()
        self._props["at"] = milliseconds(at)


def text_element(tag: str, text: str) -> TextElement:
    """Add an element with this text, which is never parsed as HTML."""
    return TextElement(tag=tag, text=text)


def anchor(text: str, href: str) -> TextElement:
    """Add a link."""
    element = text_element("a", text)
    element.props["href"] = href
    return element


@contextmanager
def section(title: str, *, level: int = 2) -> Iterator[Element]:
    """Add a section with a heading."""
    with Element("section") as part:
        heading = text_element(f"h{level}", title)
        part.props["aria-labelledby"] = heading.html_id
        yield part


@contextmanager
def facts() -> Iterator[None]:
    """Add a description list; fill it with `fact`."""
    with Element("dl").classes("k-facts"):
        yield


@contextmanager
def fact(name: str, *, whole: bool = False) -> Iterator[Element]:
    """Add a fact, whose value is built inside; a long one gets a `whole` line."""
    with Element("div").classes("whole" if whole else ""):
        text_element("dt", name)
        with Element("dd") as value:
            yield value
