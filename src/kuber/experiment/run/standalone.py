"""One entity in this process, at a hub that runs elsewhere: `kuber entity`."""

from pathlib import Path
from typing import Any

import torch

from kuber.client.credentials import KEY_FILE, TOKEN_FILE, Credentials
from kuber.client.key_rotation import NEXT_FILE, change_key
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.data.datasets import Echo
from kuber.domain.event import utc_now
from kuber.entity.hub.access import Approve, HubAccess
from kuber.entity.initialization import COMMON_SEED
from kuber.entity.state.event_log import FILE_NAME, EventLog, EventTail, rewind
from kuber.entity.state.storage import Storage
from kuber.entity.work.steps import Work
from kuber.errors import ServiceUnavailableError, SettingsError
from kuber.experiment.entity_factory import entity_folder, make_entity
from kuber.experiment.progress import RunProgress
from kuber.experiment.run.runner import checkpoint_positions, runtime_for
from kuber.experiment.scenario import load_scenario
from kuber.experiment.world.config import check_real
from kuber.learning.runtime import keep_freed_memory
from kuber.settings import Settings
from kuber.signing import Identity


def run(
    settings: Settings,
    index: int,
    folder: Path,
    *,
    registry: str,
    vault: str,
    identity: Path,
    invitation: str | None,
    patience: float,
    ca: Path | None,
    approve: Approve | None,
    progress: RunProgress,
    echo: Echo,
) -> float:
    """Run entity `index` to the end of its rounds; return its last accuracy on the common test set, 0 to 1.

    `identity` is the folder of its key and its token, `patience` the seconds to retry a hub that does not answer, and
    `ca` a file of certificates to trust instead of the system's; `approve` asks a person if the settings require it.
    Raises SettingsError when there is no such entity, ServiceUnavailableError when the hub does not answer before it
    has joined, or after its last round while messages are queued.
    """
    check_real(settings)
    if index >= settings.num_entities:
        raise SettingsError(
            f"There is no entity {index}: with num_entities {settings.num_entities} the last is "
            f"{settings.num_entities - 1}."
        )
    if (identity / NEXT_FILE).exists():
        change_key(identity, str(index), registry, patience=patience, ca=ca)  # an earlier rotation was interrupted
    key = Identity.load_or_create(identity / KEY_FILE)
    credentials = Credentials(key, invitation=invitation, path=identity / TOKEN_FILE)
    with (
        HttpRegistry(registry, credentials=credentials, patience=patience, ca=ca) as registry_port,
        HttpVault(vault, credentials=credentials, patience=patience, ca=ca) as vault_port,
    ):
        home = entity_folder(folder, index)
        for port in (registry_port, vault_port):
            try:
                port.check()
            except ServiceUnavailableError:
                if not home.exists():
                    raise  # an entity that has joined continues offline
        scenario = load_scenario(settings, verify=True, echo=echo)
        runtime = runtime_for(folder, scenario)
        keep_freed_memory()
        torch.set_num_threads(runtime.threads)
        rewind(folder / FILE_NAME, reached=checkpoint_positions(folder, [index]))
        log = EventLog(folder / FILE_NAME, clock=utc_now)
        tail = EventTail(folder / FILE_NAME)

        def execute(work: Work) -> Any:
            result = work.do(lambda share: progress.on_progress(str(index), share))
            for event in tail.read():
                progress.on_event(event)
            return result

        entity = make_entity(
            scenario,
            index,
            runtime=runtime,
            hub=HubAccess(registry=registry_port, vault=vault_port, identity=key, background=True),
            storage=Storage.in_folder(home, log, cache_bytes=settings.cache_mebibytes << 20),
            execute=execute,
            approve=approve,
            common_seed=COMMON_SEED,
        )
        entity.run()
        for event in tail.read():
            progress.on_event(event)
        return entity.accuracy
