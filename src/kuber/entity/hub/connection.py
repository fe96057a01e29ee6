"""Connection of an owner's entity with a hub: over HTTP, or with the ports that the owner gives."""

import re
from contextlib import ExitStack
from pathlib import Path

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.ports import Registry, Vault
from kuber.entity.hub.access import HubAccess
from kuber.errors import SettingsError
from kuber.signing import Identity


def connect(
    hub: str | tuple[Registry, Vault],
    vault: str | None,
    identity: Identity,
    token: Path,
    *,
    invitation: str | None,
    patience: float,
    ca: Path | None,
    stack: ExitStack,
) -> HubAccess:
    """Return access to registry and vault, which `stack` closes; nothing is sent yet. `token` is the token's file."""
    if isinstance(hub, str):
        credentials = Credentials(identity, invitation=invitation, path=token)
        vault = vault or next_port(hub)
        hub = (
            stack.enter_context(HttpRegistry(hub, credentials=credentials, patience=patience, ca=ca)),
            stack.enter_context(HttpVault(vault, credentials=credentials, patience=patience, ca=ca)),
        )
    return HubAccess(registry=hub[0], vault=hub[1], identity=identity, background=True)


def next_port(url: str) -> str:
    """Return the same address at the next port, the usual one of a hub's vault."""
    match = re.fullmatch(r"(.*:)(\d{1,5})/?", url)
    if match is None or int(match[2]) == 65535:
        lacks = "has no port" if match is None else "has no next port"
        raise SettingsError(f"hub is {url!r}, an address that {lacks}; give the vault's address too.")
    return f"{match[1]}{int(match[2]) + 1}"
