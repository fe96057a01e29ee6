"""Credentials of an entity: its key, an invitation, and the token it receives."""

from collections.abc import Callable
from pathlib import Path

from kuber.domain.auth import is_token
from kuber.errors import ServiceError
from kuber.signing import Identity, write_secret

KEY_FILE, TOKEN_FILE = "key", "token"  # in an entity's folder


class Credentials:
    """Key, invitation and token, shared by the clients of registry and vault; not thread-safe.

    The token is kept in the file `path` between processes; `token` is an existing one, such as the operator's.
    """

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        invitation: str | None = None,
        token: str | None = None,
        path: Path | None = None,
    ) -> None:
        self.identity = identity or Identity.generate()
        self.invitation = invitation
        self._path = path
        self._token = token or self._saved()
        self._tokens: dict[str, str] = {}  # by entity, if several use one client
        self._renewal: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<Credentials: key {self.identity.public_key[:12]}, {'with a' if self._token else 'no'} token>"

    def token(self, entity: str | None = None) -> str | None:
        """Return the token of this entity; without an entity, the token to read with."""
        return self._tokens.get(entity, self._token) if entity else self._token

    def take(self, entity: str, token: str, renewal: Callable[[], object]) -> None:
        """Keep an entity's new token; `renewal` gets another one when it ends."""
        self._tokens[entity] = token
        self._token = token
        self._renewal = renewal
        if self._path is not None:
            try:
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
