"""Runs and comparisons of a folder, side by side."""

from nicegui import ui
from nicegui.page_arguments import PageArguments

from kuber.dashboard.elements.words import words
from kuber.dashboard.visit import Visit


def page(visit: Visit, arguments: PageArguments) -> None:
    """Runs."""
    ui.page_title("Runs · KUber")
    words("h1", "Runs")
