"""What a run, a comparison and a hub look like; the terminal, the plots and the report draw the same."""

from kuber.views.comparison import (
    FLOOR,
    PUBLIC,
    ComparisonResult,
    Difference,
    Point,
    Row,
    Section,
    Spread,
    Summary,
)
from kuber.views.hub import HubDelivery, HubEntity, HubView
from kuber.views.result import EntityResult, RunResult, mean_by_round, parsed
from kuber.views.run import DeliveryView, EntityView, Mark, RunView, Stopwatch
from kuber.views.wording import ago, duration, natural, percent, points, printable, size, sparkline

__all__ = [
    "FLOOR",
    "PUBLIC",
    "ComparisonResult",
    "DeliveryView",
    "Difference",
    "EntityResult",
    "EntityView",
    "HubDelivery",
    "HubEntity",
    "HubView",
    "Mark",
    "Point",
    "Row",
    "RunResult",
    "RunView",
    "Section",
    "Spread",
    "Stopwatch",
    "Summary",
    "ago",
    "duration",
    "mean_by_round",
    "natural",
    "parsed",
    "percent",
    "points",
    "printable",
    "size",
    "sparkline",
]
