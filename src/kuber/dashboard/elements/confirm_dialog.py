"""Dialog that asks for confirmation before it changes something at the hub, and shows the hub's refusal."""

import asyncio
from collections.abc import Callable

from nicegui import ui
from nicegui.element import Element

from kuber.dashboard.elements.controls import button
from kuber.dashboard.elements.text import text_element
from kuber.errors import KUberError

# Reads the form's field on submit: its value may not have reached the server letter by letter yet.
_SUBMIT = "(event) => { event.preventDefault(); emit(new FormData(event.target).get('answer') ?? ''); }"


class ConfirmDialog(ui.dialog):
    """Dialog with a sentence, an optional field, and buttons to confirm or cancel."""

    def __init__(
        self,
        title: str,
        sentence: str,
        *,
        label: str,
        action: Callable[[str], None],
        on_done: Callable[[str], None] = lambda _: None,
        field: str | None = None,
        required: str | None = None,
        kind: str = "",
        **attributes: str,
    ) -> None:
        """Build the dialog. `label` is on the button that calls `action`, with the text of the `field`.

        `action` blocks, so it runs in a thread; a KUberError that it raises is shown. `on_done` is called after it.
        `required` is the sentence shown for an empty field. `attributes` are those of the field.
        """
        super().__init__()
        self._action = action
        self._on_done = on_done
        self._required = required
        with self, Element("form").classes("k-dialog") as self._form:
            heading = text_element("h2", title)
            text_element("p", sentence)
            if field is not None:
                _field(field, attributes)
            self._message = text_element("p", "").classes("k-fault").props("role=alert")
            with Element("div").classes("k-row"):
                self._confirm = text_element("button", label).classes(f"k-button {kind}").props("type=submit")
                button("Cancel", self.close, kind="quiet")
        self.props["aria-labelledby"] = heading.html_id
        self._form.on("submit", lambda event: self._submit(str(event.args).strip()), js_handler=_SUBMIT)

    async def _submit(self, answer: str) -> None:
        if self._required is not None and not answer:
            self._message.set_text(self._required)
            return
        self._confirm.props["disabled"] = True
        self._message.set_text("Contacting the hub …")
        try:
            await asyncio.to_thread(self._action, answer)
        except KUberError as error:
            self._message.set_text(error.message)
            return
        finally:
            self._confirm.props["disabled"] = False
        self._message.set_text("")
        ui.run_javascript(f"getHtmlElement({self._form.id})?.reset()")  # no secret stays in the page
        self.close()
        self._on_done(answer)


def _field(label: str, attributes: dict[str, str]) -> None:
    with Element("label").classes("k-field"):
        text_element("span", label)
        field = Element("input")
        for name, value in {"name": "answer", "autocomplete": "off", "autofocus": "", **attributes}.items():
            field.props[name] = value
