"""Text of others, made fit to be shown: nothing in it controls a terminal, forges a line, or hides or turns text."""


def printable(text: str) -> str:
    r"""Return the text with all characters that are not printable as escapes, such as \x1b.

    They are control and format characters, line ends, marks that change the direction of text, and lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
