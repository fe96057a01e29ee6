"""A question to the reader, asked before something is done at the hub; what the hub refuses is told in it."""

import asyncio
from collections.abc import Callable

from nicegui import ui
from nicegui.element import Element

from kuber.dashboard.elements.controls import button
from kuber.dashboard.elements.text import text_element
from kuber.errors import KUberError

# Hands over what is in the form's field, as whoever sends it does not wait until it was told letter by letter.
_SEND = "(event) => { event.preventDefault(); emit(new FormData(event.target).get('told') ?? ''); }"


class ConfirmDialog(ui.dialog):
    """A dialog with a sentence, perhaps one field, and a button that does it or not."""

    def __init__(
        self,
        title: str,
        sentence: str,
        *,
        does: str,
        act: Callable[[str], None],
        done: Callable[[str], None] = lambda _: None,
        field: str | None = None,
        missing: str | None = None,
        kind: str = "",
        **attributes: str,
    ) -> None:
        """`act` blocks, so it is called in a thread, with what is in the `field`; a KUberError of it is told.

        `does` stands on the button. `done` follows when it was done. An empty field is answered with `missing`, where
        there is such a sentence. `attributes` are the field's.
        """
        super().__init__()
        self._act = act
        self._done = done
        self._missing = missing
        with self, Element("form").classes("k-dialog") as self._form:
            heading = text_element("h2", title)
            text_element("p", sentence)
            if field is not None:
                _field(field, attributes)
            self._told = text_element("p", "").classes("k-fault").props("role=alert")
            with Element("div").classes("k-row"):
                self._send = text_element("button", does).classes(f"k-button {kind}").props("type=submit")
                button("Cancel", self.close, kind="quiet")
        self.props["aria-labelledby"] = heading.html_id
        self._form.on("submit", lambda event: self._answer(str(event.args).strip()), js_handler=_SEND)

    async def _answer(self, told: str) -> None:
        if self._missing is not None and not told:
            self._told.set_text(self._missing)
            return
        self._send.props["disabled"] = True
        self._told.set_text("Asking the hub …")
        try:
            await asyncio.to_thread(self._act, told)
        except KUberError as error:
            self._told.set_text(error.message)
            return
        finally:
            self._send.props["disabled"] = False
        self._told.set_text("")
        ui.run_javascript(f"getHtmlElement({self._form.id})?.reset()")  # no secret stays in the page
        self.close()
        self._done(told)


def _field(label: str, attributes: dict[str, str]) -> None:
    with Element("label").classes("k-field"):
        text_element("span", label)
        field = Element("input")
        for name, value in {"name": "told", "autocomplete": "off", "autofocus": "", **attributes}.items():
            field.props[name] = value
