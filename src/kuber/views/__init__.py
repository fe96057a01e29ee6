"""View models of runs, comparisons and hubs, shared by terminal, plots, report and dashboard."""

from kuber.views.comparison import (
    FLOOR,
    PUBLIC,
    ComparisonPlan,
    ComparisonResult,
    Difference,
    Point,
    ResultRow,
    Section,
    Spread,
    Summary,
)
from kuber.views.delivery import DeliveryView, HubDelivery, absorption
from kuber.views.exchange import EntityExchange, exchanges
from kuber.views.formatting import ago, duration, natural, percent, points, printable, size, sparkline
from kuber.views.groups import GroupView, groups_of
from kuber.views.hub import HubEntity, HubView
from kuber.views.result import EntityResult, RunResult, mean_by_round, parsed
from kuber.views.run import CurveMark, EntityView, RunView, Stopwatch
from kuber.views.run_diff import Curve, RunDiff, curves, diff_runs
from kuber.views.run_index import (
    LOCK_FILE,
    NAME_TIME_FORMAT,
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
    "NAME_TIME_FORMAT",
    "PLAN_FILE",
    "PUBLIC",
    "RESULT_FILE",
    "SETTINGS_FILE",
    "ComparisonPlan",
    "ComparisonResult",
    "Curve",
    "CurveMark",
    "DeliveryView",
    "Difference",
    "EntityExchange",
    "EntityResult",
    "EntityView",
    "GroupView",
    "HubDelivery",
    "HubEntity",
    "HubView",
    "Point",
    "ResultRow",
    "RunDiff",
    "RunResult",
    "RunView",
    "Section",
    "Spread",
    "Stopwatch",
    "StoredRun",
    "Summary",
    "absorption",
    "ago",
    "curves",
    "diff_runs",
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
