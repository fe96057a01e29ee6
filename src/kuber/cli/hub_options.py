"""Options that name a hub, and the connections they open."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kuber.domain.auth import OPERATOR_TOKEN_FILE, is_token
from kuber.errors import SettingsError
from kuber.settings import expand_home

if TYPE_CHECKING:
    from kuber.client.admin import AdminClient
    from kuber.client.credentials import Credentials
    from kuber.client.registry import HttpRegistry
    from kuber.client.vault import HttpVault

RegistryUrl = Annotated[str, typer.Option("--registry", metavar="URL", help="URL of the registry.")]
VaultUrl = Annotated[str, typer.Option("--vault", metavar="URL", help="URL of the vault.")]
AdminToken = Annotated[Path, typer.Option("--admin-token", metavar="FILE", help="File with the operator's token.")]
DEFAULT_REGISTRY, DEFAULT_VAULT = "http://127.0.0.1:5001", "http://127.0.0.1:5002"
OPERATOR_TOKEN = Path("hub/registry") / OPERATOR_TOKEN_FILE
IdentityFolder = Annotated[
    Path | None,
    typer.Option("--identity", metavar="DIR", help="Folder with the key and token of the entity to act as."),
]


@contextmanager
def open_registry(
    url: str, identity: Path | None, admin_token: Path, ca: Path | None, *, patience: float = 10.0
) -> Iterator["HttpRegistry"]:
    """Open the registry at `url`, as the operator or as the entity whose folder is `identity`."""
    from kuber.client.registry import HttpRegistry

    credentials = credentials_of(identity, admin_token)
    with HttpRegistry(url, credentials=credentials, patience=patience, ca=ca) as records:
        records.check()
        yield records


@contextmanager
def open_vault(url: str, credentials: "Credentials", ca: Path | None) -> Iterator["HttpVault"]:
    """Open the vault at `url`."""
    from kuber.client.vault import HttpVault

    with HttpVault(url, credentials=credentials, ca=ca) as blobs:
        blobs.check()
        yield blobs


def as_operator(registry: str, admin_token: Path, ca: Path | None) -> "AdminClient":
    """Return a client with the operator's token. A context manager."""
    from kuber.client.admin import AdminClient

    return AdminClient(registry, token_in(admin_token), ca=ca)


def credentials_of(identity: Path | None, admin_token: Path) -> "Credentials":
    """Return the credentials of the operator, or of the entity whose folder is `identity`."""
    from kuber.client.credentials import KEY_FILE, TOKEN_FILE, Credentials
    from kuber.signing import Identity

    if identity is None:
        return Credentials(token=token_in(admin_token))
    if not (identity / TOKEN_FILE).exists():
        raise SettingsError(f"There is no token in {identity}; an entity gets one when it joins.")
    return Credentials(Identity.load_or_create(identity / KEY_FILE), path=identity / TOKEN_FILE)


@contextmanager
def open_hub(
    registry: str, vault: str, identity: Path | None, admin_token: Path, ca: Path | None
) -> Iterator[tuple["HttpRegistry", "HttpVault"]]:
    """Open registry and vault, as the operator or as the entity whose folder is `identity`."""
    with (
        open_registry(registry, identity, admin_token, ca) as records,
        open_vault(vault, records.credentials, ca) as blobs,
    ):
        yield records, blobs


def token_in(path: Path) -> str:
    """Return the token in a file that the registry wrote. Raises SettingsError when it cannot be read."""
    try:
        token = expand_home(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not is_token(token):
        raise SettingsError(
            f"The token cannot be read from {path}; name the file that the registry wrote into its data folder."
        )
    return token
