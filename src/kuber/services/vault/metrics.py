"""Prometheus metrics of a vault."""

from kuber.domain.blob import Collection, Scrub
from kuber.services.http.metrics import Metrics
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads


class VaultMetrics(Metrics):
    """Metrics of requests and the database, with those of uploads, collections and scrubs."""

    def __init__(self, store: VaultStore, uploads: Uploads) -> None:
        super().__init__("vault")
        self.watch_database(store.database)
        self.gauge("kuber_uploads_under_way", "Uploads in progress.", lambda: uploads.in_progress)
        self._collected = self.counter("kuber_blobs_collected", "Blobs deleted by collections.")
        self._collected_bytes = self.counter("kuber_blobs_collected_bytes", "Bytes deleted by collections.")
        self._scrubbed = self.counter("kuber_blobs_scrubbed", "Blobs hashed again by scrubs.")
        self._rotten = self.counter("kuber_blobs_rotten", "Blobs found damaged or lost by scrubs.")

    def count_collection(self, done: Collection) -> None:
        """Count a collection."""
        self._collected.inc(done.blobs)
        self._collected_bytes.inc(done.size)

    def count_scrub(self, done: Scrub) -> None:
        """Count a batch of a scrub."""
        self._scrubbed.inc(done.blobs)
        self._rotten.inc(len(done.rotten))
