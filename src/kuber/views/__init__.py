"""What a run and a hub look like at one moment; the terminal, the plots and the report draw the same."""

from kuber.views.hub import HubDelivery, HubEntity, HubView
from kuber.views.run import DeliveryView, EntityView, Mark, RunView, Stopwatch
from kuber.views.wording import ago, duration, natural, percent, points, printable, size, sparkline

__all__ = [
    "DeliveryView",
    "EntityView",
    "HubDelivery",
    "HubEntity",
    "HubView",
    "Mark",
    "RunView",
    "Stopwatch",
    "ago",
    "duration",
    "natural",
    "percent",
    "points",
    "printable",
    "size",
    "sparkline",
]
