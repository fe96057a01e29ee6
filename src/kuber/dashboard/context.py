"""The hub and the runs that every page of the dashboard shows."""

from dataclasses import dataclass
from pathlib import Path

from kuber.dashboard.hub_feed import HubFeed
from kuber.dashboard.hub_reader import HubReader
from kuber.views.entity_logs import EntityLogs


@dataclass(frozen=True, kw_only=True, slots=True)
class PageContext:
    """Arguments that all pages share."""

    feed: HubFeed
    reader: HubReader
    runs: Path  # folder of run folders
    logs: EntityLogs  # of the entities on this machine
