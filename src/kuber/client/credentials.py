"""Credentials of an entity: its key, an invitation, and the token it receives."""

from collections.abc import Callable
from pathlib import Path

from kuber.errors import ServiceError
from kuber.signing import Identity, write_secret

KEY_FILE, TOKEN_FILE = "key", "token"  # in an entity's folder


class Credentials:
    """Shared by the clients of registry and vault; not safe to use from several threads at the same moment.

    `path` keeps the token between two lives of the process; `token` is one that is there from the start, such as
    the operator's.
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
        self._of: dict[str, str] = {}  # entity -> its token, where several act through one client
        self._renewal: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Credentials: key {self.identity.public_key[:12]}, {'with a' if self._token else 'no'} token>"

    def token(self, entity: str | None = None) -> str | None:
        """The token to act for this entity with; the one to read with when none is named."""
        return self._of.get(entity, self._token) if entity else self._token

    def take(self, entity: str, token: str, renewal: Callable[[], None]) -> None:
        """Keep a token that was given; `renewal` asks for another when it ends."""
        self._of[entity] = token
        self._token = token
        self._renewal = renewal
        if self._path is not None:
            try:
                write_secret(self._path, token)
            except OSError as error:
                raise ServiceError(f"The token cannot be kept in {self._path}: {error.strerror}.") from None

    def renew(self) -> bool:
        """Ask for a new token; False when nothing was enrolled with these credentials."""
        if self._renewal is None:
            before, self._token = self._token, self._saved() or self._token
            return self._token != before  # the entity may have joined anew elsewhere, and kept the new one
        renewal, self._renewal = self._renewal, None  # a renewal that is refused is not renewed
        renewal()
        return True

    def _saved(self) -> str | None:
        if self._path is None or not self._path.exists():
            return None
        try:
            return self._path.read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise ServiceError(f"The token in {self._path} cannot be read: {error}.") from None
