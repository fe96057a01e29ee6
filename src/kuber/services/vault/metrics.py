"""What a vault counts of its blobs."""

from kuber.domain.blob import Collection, Scrub
from kuber.services.http.metrics import Metrics
from kuber.services.vault.store import VaultStore
from kuber.services.vault.uploads import Uploads


class VaultMetrics:
    """The metrics of a vault; collections and scrubs are told to it."""

    def __init__(self, store: VaultStore, uploads: Uploads) -> None:
        self.metrics = Metrics("vault")
        self.metrics.watch_database(store.database)
        self.metrics.gauge("kuber_uploads_under_way", "Uploads that wait for bytes.", lambda: uploads.under_way)
        self._collected = self.metrics.counter("kuber_blobs_collected", "Blobs removed as nobody held them.")
        self._bytes = self.metrics.counter("kuber_blobs_collected_bytes", "Their bytes.")
        self._scrubbed = self.metrics.counter("kuber_blobs_scrubbed", "Blobs hashed again.")
        self._rotten = self.metrics.counter("kuber_blobs_rotten", "Blobs found damaged, or gone, by a scrub.")

    def collected(self, done: Collection) -> None:
        """Count a collection."""
        self._collected.inc(done.blobs)
        self._bytes.inc(done.size)

    def scrubbed(self, done: Scrub) -> None:
        """Count a stretch of a scrub."""
        self._scrubbed.inc(done.blobs)
        self._rotten.inc(len(done.rotten))
