"""The colours of every chart, light and dark; colour-blind people can tell them apart."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """The colours of a chart; lines take `colours` in this order."""

    colours: tuple[str, ...]
    pale: str  # of lines in the background
    ink: str  # of text
    grid: str
    paper: str


# Okabe & Ito's colours (jfly.uni-koeln.de/color) that are dark enough on white, and brighter ones like them.
_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#B35C8C", "#000000", "#4FA3D1", "#B8860B")
_DARK = ("#56B4E9", "#F0955C", "#2CC295", "#DB8FBF", "#F2F2F2", "#A6D8F5", "#E3B341")
LIGHT = Palette(colours=_LIGHT, pale="#7F97AB", ink="#333333", grid="#E4E4E4", paper="#FFFFFF")
DARK = Palette(colours=_DARK, pale="#71879B", ink="#D5DCE4", grid="#2B343E", paper="#14181D")
