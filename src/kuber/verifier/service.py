"""The loop of `kuber hub verifier`."""

import math
import time
from collections.abc import Callable
from pathlib import Path

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.data.batches import Normalisation
from kuber.data.class_names import match_classes
from kuber.data.common_test_set import load_task
from kuber.data.datasets import load_dataset
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Verification
from kuber.errors import NotAuthorizedError, ServiceError, SettingsError
from kuber.settings import Settings
from kuber.verifier.sample_file import read_sample_files
from kuber.verifier.sandboxed_evaluation import Limits, VerificationSet
from kuber.verifier.verifier import VerificationSource, Verifier

LISTING_SECONDS = 600.0  # between two looks for tasks without samples


def run_verifier(
    settings: Settings,
    *,
    registry: str,
    vault: str,
    token: str,
    secret_set: Path | None,
    sample_files: list[str],
    limits: Limits,
    pause: float | None,
    ca: Path | None,
    echo: Callable[[str], None],
) -> None:
    """Verify each record as soon as it is published, until interrupted; with `pause` None, only the pending ones.

    Pending records are also looked up every `pause` seconds, because the event feed does not have released records.
    """
    sources: list[VerificationSource] = [*read_sample_files(sample_files, settings)]
    if not sources or secret_set is not None or "dataset" in settings.model_fields_set:
        sources.append(load_verification_set(settings, secret_set, echo))
    names = [source.task_name for source in sources]
    credentials = Credentials(token=token)

    def report(knowledge: Knowledge, verification: Verification) -> None:
        echo(f"{knowledge.id} {verification.standing}: {verification.reason}")

    reported: set[str] = set()  # tasks without samples

    def report_tasks(verifier: Verifier) -> None:
        for name, count in verifier.tasks_without_samples().items():
            if name not in reported:
                reported.add(name)
                records = "1 record" if count == 1 else f"{count} records"
                echo(f"No samples for the task {name!r}: {records} cannot be verified; give --samples TASK=FILE.")

    with (
        HttpRegistry(registry, credentials=credentials, ca=ca) as registry_port,
        HttpVault(vault, credentials=credentials, ca=ca) as vault_port,
    ):
        registry_port.check()
        vault_port.check()
        verifier = Verifier(*sources, registry=registry_port, vault=vault_port, limits=limits)
        if pause is None:
            verifier.verify_pending(report)
            report_tasks(verifier)
            return
        echo(f"Verifying what is published on {', '.join(names)}.")
        task = names[0] if len(names) == 1 else None
        cursor: str | None = None
        listed = -math.inf
        while True:
            try:
                if cursor is None:  # before the first look-up, so that no record falls between the two
                    cursor = registry_port.watch().cursor
                verifier.verify_pending(report)
                if time.monotonic() - listed > LISTING_SECONDS:
                    listed = time.monotonic()
                    report_tasks(verifier)
                cursor = registry_port.watch(after=cursor, task=task, seconds=min(pause, 20.0)).cursor
            except NotAuthorizedError:
                raise
            except ServiceError as error:
                echo(error.message)
                time.sleep(pause)


def load_verification_set(
    settings: Settings, secret_set: Path | None, echo: Callable[[str], None]
) -> VerificationSet:
    """Return the task of the data set, and the samples to verify with: the common test set or a secret one."""
    dataset, task, samples = load_task(settings, verify=True, echo=echo)
    if secret_set is not None:
        secret = load_dataset(str(secret_set), cache_dir=settings.cache_dir, echo=echo)
        samples = secret.train
        if samples.shape != task.input_shape or len(secret.labels) > task.classes:
            shape, expected = ("x".join(map(str, shape)) for shape in (samples.shape, task.input_shape))
            raise SettingsError(
                f"{secret_set} has samples of shape {shape} in {len(secret.labels)} classes; "
                f"those of {dataset.name} have shape {expected} in {task.classes}."
            )
        samples = samples.relabelled(match_classes(secret.labels, task.labels, source=secret_set))
    normalisation = Normalisation(dataset.mean, dataset.std)
    return VerificationSet(task=task, samples=samples, test_set=samples.digest(), normalisation=normalisation)
