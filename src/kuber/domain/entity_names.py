"""Names of entities: one form of each, nothing invisible in them, and none that can be mistaken for another.

The skeleton of a name is that of Unicode Technical Standard 39, section 4, with a table of common letters only: names
with one skeleton look alike.
"""

import unicodedata
from collections.abc import Iterator, Mapping

from kuber.domain.digest import Digest
from kuber.errors import ConflictError, RequestRejectedError

MAX_NAME = 200  # characters

_SELECTORS = (0xFE00, 0xFE0F), (0xE0100, 0xE01EF)  # of variants of the character before them
# Printable by their category, but drawn as nothing or as a blank.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | {
    chr(code) for first, last in _SELECTORS for code in range(first, last + 1)
}
_MARKS = "\u0300", "\u036f"  # combining: those that are left after composition
# Letters that fonts draw like Latin ones, by their names in Unicode.
_LETTERS: Mapping[str, Mapping[str, str]] = {
    "CYRILLIC SMALL LETTER": {
        **{"A": "a", "VE": "b", "ES": "c", "KOMI DE": "d", "IE": "e", "EN": "h", "SHHA": "h"},
        **{"BYELORUSSIAN-UKRAINIAN I": "i", "JE": "j", "KA": "k", "PALOCHKA": "l", "EM": "m", "PE": "n", "O": "o"},
        **{"ER": "p", "QA": "q", "GHE": "r", "DZE": "s", "TE": "t", "IZHITSA": "v", "WE": "w", "HA": "x"},
        **{"U": "y", "STRAIGHT U": "y"},
    },
    "CYRILLIC CAPITAL LETTER": {
        **{"A": "A", "VE": "B", "ES": "C", "IE": "E", "EN": "H", "BYELORUSSIAN-UKRAINIAN I": "I", "JE": "J"},
        **{"KA": "K", "EM": "M", "O": "O", "ER": "P", "QA": "Q", "DZE": "S", "TE": "T", "IZHITSA": "V", "WE": "W"},
        **{"HA": "X", "U": "Y", "STRAIGHT U": "Y"},
    },
    "GREEK SMALL LETTER": {
        **{"ALPHA": "a", "BETA": "b", "EPSILON": "e", "IOTA": "i", "KAPPA": "k", "ETA": "n", "OMICRON": "o"},
        **{"SIGMA": "o", "RHO": "p", "TAU": "t", "MU": "u", "UPSILON": "u", "NU": "v", "OMEGA": "w", "CHI": "x"},
        **{"GAMMA": "y"},
    },
    "GREEK CAPITAL LETTER": {
        **{"ALPHA": "A", "BETA": "B", "EPSILON": "E", "ETA": "H", "IOTA": "I", "KAPPA": "K", "MU": "M", "NU": "N"},
        **{"OMICRON": "O", "RHO": "P", "TAU": "T", "CHI": "X", "UPSILON": "Y", "ZETA": "Z"},
    },
    "ARMENIAN SMALL LETTER": {"HO": "h", "VO": "n", "OH": "o", "SEH": "u"},
    "LATIN SMALL LETTER": {"ALPHA": "a", "SCRIPT G": "g", "DOTLESS I": "i", "IOTA": "i", "DOTLESS J": "j"},
    "LATIN LETTER SMALL CAPITAL": {letter: letter.lower() for letter in "ABCDEGHIJKLMNOPRTUVWYZ"},
}
_SIGNS = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
    **dict.fromkeys("\u2019\u02bc\u02b9\u0060\u00b4", "'"),
    "\u01c0": "l",
}
_STROKES = str.maketrans({"1": "l", "|": "l", "!": "l", "0": "o"})  # after case folding


def _pairs() -> Iterator[tuple[str, str]]:
    for script, letters in _LETTERS.items():
        for letter, latin in letters.items():
            yield unicodedata.lookup(f"{script} {letter}"), latin
    yield from _SIGNS.items()


_TABLE = str.maketrans(dict(_pairs()))


def form_of(name: str) -> str:
    """Return the form in which a hub keeps a name: NFKC, without blanks around it."""
    return unicodedata.normalize("NFKC", name).strip()


def normalised(name: str) -> str:
    """Return the name of a new entity in the form in which a hub keeps it.

    Raises RequestRejectedError for a name that is blank, too long, or has characters that cannot be seen.
    """
    seen = name.isprintable() and not _INVISIBLE & set(name)
    made = form_of(name) if seen and len(name) <= MAX_NAME else ""
    if not 1 <= len(made) <= MAX_NAME or not made.isprintable():
        raise RequestRejectedError(
            f"The name of an entity is 1 to {MAX_NAME} printable characters that can be seen; choose another."
        )
    return made


def skeletons(name: str) -> frozenset[str]:
    """Return the skeletons of a name, as digests; names that have one in common look alike.

    There are two, because a capital I looks like a small l and is also the capital of i.
    """
    visible = "".join(character for character in name if character not in _INVISIBLE)
    latin = unicodedata.normalize("NFKC", visible).translate(_TABLE)
    readings = ("i", latin), ("l", latin.replace("I", "l"))
    return frozenset(Digest.of(f"{letter} {_skeleton(text)}".encode()).hex for letter, text in readings)


def _skeleton(text: str) -> str:
    folded = text.casefold().translate(_STROKES)
    bare = "".join(character for character in folded if not _MARKS[0] <= character <= _MARKS[1])
    return " ".join(bare.split()).replace("rn", "m").replace("vv", "w")


def check_distinct(name: str, other: str | None) -> None:
    """Raise ConflictError when an entity of the hub has another name that looks like this one."""
    if other is not None and other != name:
        raise ConflictError(
            f"The name {name!r} can be mistaken for {other!r}, an entity of this hub; choose another."
        )
