"""What every page of the dashboard is given."""

from dataclasses import dataclass
from pathlib import Path

from kuber.dashboard.hub_feed import Feed
from kuber.dashboard.hub_reader import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """The hub that is looked at, and where runs lie."""

    feed: Feed
    source: Source
    runs: Path
