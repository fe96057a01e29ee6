"""`kuber hub verifier`: the examiner on a data set, until it is told to stop."""

import time
from collections.abc import Callable
from pathlib import Path

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.data.batches import Normalisation
from kuber.data.common_test_set import load_task
from kuber.data.datasets import load_dataset
from kuber.domain.knowledge import Knowledge
from kuber.domain.verification import Verification
from kuber.errors import ServiceUnavailableError, SettingsError
from kuber.settings import Settings
from kuber.verifier.sandboxed_evaluation import Limits
from kuber.verifier.verifier import VerificationSet, Verifier


def run_verifier(
    settings: Settings,
    *,
    registry: str,
    vault: str,
    token: str,
    secret_set: Path | None,
    limits: Limits,
    pause: float | None,
    ca: Path | None,
    echo: Callable[[str], None],
) -> None:
    """Examine what is new as soon as it is published, and look again every `pause` seconds, since what is released is
    no news; without a pause, examine only what is there.
    """
    yardstick = yardstick_of(settings, secret_set, echo)
    credentials = Credentials(token=token)

    def tell(knowledge: Knowledge, found: Verification) -> None:
        echo(f"{knowledge.id} {found.standing}: {found.reason}")

    with (
        HttpRegistry(registry, credentials=credentials, ca=ca) as registry_port,
        HttpVault(vault, credentials=credentials, ca=ca) as vault_port,
    ):
        registry_port.check()
        vault_port.check()
        examiner = Verifier(yardstick, registry=registry_port, vault=vault_port, limits=limits)
        if pause is None:
            examiner.examine_pending(tell)
            return
        echo(f"Examining what is published on {yardstick.task.name}.")
        news: str | None = None
        while True:
            try:
                if news is None:  # before the first look, so that nothing falls between the two
                    news = registry_port.watch().cursor
                examiner.examine_pending(tell)
                news = registry_port.watch(after=news, task=yardstick.task.name, seconds=min(pause, 20.0)).cursor
            except ServiceUnavailableError as error:
                echo(error.message)
                time.sleep(pause)


def yardstick_of(settings: Settings, secret_set: Path | None, echo: Callable[[str], None]) -> VerificationSet:
    """The task of the data set, and the samples to examine with."""
    dataset, task, common = load_task(settings, verify=True, echo=echo)
    samples = common
    if secret_set is not None:
        own = load_dataset(str(secret_set), cache_dir=settings.cache_dir, echo=echo)
        samples = own.train
        if samples.shape != common.shape or len(own.labels) > task.classes:
            theirs, ours = ("x".join(map(str, one.shape)) for one in (samples, common))
            raise SettingsError(
                f"{secret_set} has samples of shape {theirs} in {len(own.labels)} classes; "
                f"those of {dataset.name} have shape {ours} in {task.classes}."
            )
    return VerificationSet(
        task=task,
        samples=samples,
        test_set=samples.digest(),
        normalisation=Normalisation(dataset.mean, dataset.std),
    )
