"""What every page of the dashboard is given."""

from dataclasses import dataclass
from pathlib import Path

from kuber.dashboard.hub_feed import HubFeed
from kuber.dashboard.hub_reader import HubReader


@dataclass(frozen=True, kw_only=True, slots=True)
class PageContext:
    """The hub that is looked at, and where runs lie."""

    feed: HubFeed
    source: HubReader
    runs: Path
