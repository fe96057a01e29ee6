"""What a run, a comparison and a hub look like; the terminal, the plots and the report draw the same."""

from kuber.views.comparison import (
    FLOOR,
    PUBLIC,
    ComparisonPlan,
    ComparisonResult,
    Difference,
    Point,
    Row,
    Section,
    Spread,
    Summary,
)
from kuber.views.delivery import DeliveryView, HubDelivery, absorption
from kuber.views.exchange import Exchange, exchanges
from kuber.views.formatting import ago, duration, natural, percent, points, printable, size, sparkline
from kuber.views.groups import GroupView, groups_of
from kuber.views.hub import HubEntity, HubView
from kuber.views.result import EntityResult, RunResult, mean_by_round, parsed
from kuber.views.run import EntityView, Mark, RunView, Stopwatch
from kuber.views.run_diff import Contrast, Curve, contrast, curves
from kuber.views.run_index import (
    LOCK_FILE,
    NAMED,
    PLAN_FILE,
    RESULT_FILE,
    SETTINGS_FILE,
    StoredRun,
    is_at_work,
    read_run,
    read_runs,
)

__all__ = [
    "FLOOR",
    "LOCK_FILE",
    "NAMED",
    "PLAN_FILE",
    "PUBLIC",
    "RESULT_FILE",
    "SETTINGS_FILE",
    "ComparisonPlan",
    "ComparisonResult",
    "Contrast",
    "Curve",
    "DeliveryView",
    "Difference",
    "EntityResult",
    "EntityView",
    "Exchange",
    "GroupView",
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
    "StoredRun",
    "Summary",
    "absorption",
    "ago",
    "contrast",
    "curves",
    "duration",
    "exchanges",
    "groups_of",
    "is_at_work",
    "mean_by_round",
    "natural",
    "parsed",
    "percent",
    "points",
    "printable",
    "read_run",
    "read_runs",
    "size",
    "sparkline",
]
