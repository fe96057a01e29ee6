"""The colours of every picture, light and dark; told apart by the colour-blind."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """What a picture is drawn with; the first colours are those of the first lines."""

    colours: tuple[str, ...]
    pale: str  # of what stays in the background
    ink: str  # of words
    grid: str
    paper: str


# Okabe & Ito's colours (jfly.uni-koeln.de/color), those that are dark enough on white, and their brighter likes.
LIGHT = Palette(
    colours=("#0072B2", "#D55E00", "#009E73", "#B35C8C", "#000000", "#4FA3D1", "#B8860B"),
    pale="#7F97AB",
    ink="#333333",
    grid="#E4E4E4",
    paper="#FFFFFF",
)
DARK = Palette(
    colours=("#56B4E9", "#F0955C", "#2CC295", "#DB8FBF", "#F2F2F2", "#A6D8F5", "#E3B341"),
    pale="#71879B",
    ink="#D5DCE4",
    grid="#2B343E",
    paper="#14181D",
)
