"""Credentials of an entity: its key, an invitation, and the token it receives."""

from collections.abc import Callable
from pathlib import Path

from kuber.client.known_hubs import HUBS_FILE, KnownHubs
from kuber.domain.auth import is_token
from kuber.errors import ServiceError
from kuber.signing import Identity, write_secret

KEY_FILE, TOKEN_FILE = "key", "token"  # in an entity's folder


class Credentials:
    """Key, invitation and token, shared by the clients of registry and vault; not thread-safe.

    The token is kept in the file `path` between processes, and beside it the hubs that have issued one; `token` is an
    existing one, such as the operator's.
    """

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        invitation: str | None = None,
        token: str | None = None,
        path: Path | None = None,
        hub_may_move: bool = False,
    ) -> None:
        """With `hub_may_move` a hub is known by its id at any address, as when this program starts it."""
        self.identity = identity or Identity.generate()
        self.invitation = invitation
        self._path = path
        self._given = token
        self._hubs = None if path is None else KnownHubs(path.with_name(HUBS_FILE), may_move=hub_may_move)
        self._registry: str | None = None  # URL of the registry that these credentials are for
        self._token = token or self._saved()
        self._tokens: dict[str, str] = {}  # by entity, if several use one client
        self._renewal: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<Credentials: key {self.identity.public_key[:12]}, {'with a' if self._token else 'no'} token>"

    def token(self, entity: str | None = None) -> str | None:
        """Return the token of this entity; without an entity, the token to read with."""
        return self._tokens.get(entity, self._token) if entity else self._token

    def use_at(self, registry: str) -> None:
        """Use the token for the hub with the registry at this URL: that of another hub is not sent there."""
        self._registry = registry
        self._token = self._given or self._saved()

    @property
    def hub(self) -> str | None:
        """Id of the hub that this entity knows at the address of its registry, if any."""
        return None if self._hubs is None or self._registry is None else self._hubs.at(self._registry)

    def check_hub(self, hub: str) -> None:
        """Check the id that the registry has proved, as `KnownHubs.check` does."""
        if self._hubs is not None and self._registry is not None:
            self._hubs.check(hub, self._registry)

    def take(self, entity: str, token: str, renewal: Callable[[], object], *, hub: str | None = None) -> None:
        """Keep an entity's new token from this hub; `renewal` gets another one when it ends."""
        self._tokens[entity] = token
        self._token = token
        self._renewal = renewal
        if self._path is not None:
            try:
                if self._hubs is not None and self._registry is not None and hub is not None:
                    self._hubs.take(hub, self._registry, token)
                write_secret(self._path, token)
            except OSError as error:
                raise ServiceError(f"The token cannot be written to {self._path}: {error.strerror}.") from None

    def renew(self) -> bool:
        """Get a new token; return False when no entity has enrolled with these credentials."""
        if self._renewal is None:
            before, self._token = self._token, self._saved() or self._token
            return self._token != before  # another process of the entity may have enrolled again
        renewal, self._renewal = self._renewal, None  # a refused renewal is not repeated
        renewal()
        return True

    def _saved(self) -> str | None:
        """Return the token in the files; in a folder of an older version it may be that of any hub."""
        if self._hubs is not None and self._registry is not None and self._hubs.path.exists():
            return self._hubs.token(self._registry)
        if self._path is None or not self._path.exists():
            return None
        try:
            token = self._path.read_text(encoding="ascii").strip()
        except OSError as error:
            raise ServiceError(f"The token in {self._path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            token = "no token"  # noqa: S105
        if token and not is_token(token):
            raise ServiceError(f"{self._path} holds no token; remove the file, and the entity gets a new one.")
        return token or None
