"""Identity of a hub: the key that it proves itself with, and the challenges that entities sign to join."""

import hashlib
import hmac
import os
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, insert, select

from kuber.domain.event import utc_now
from kuber.errors import NotAuthorizedError
from kuber.services.db.database import Database
from kuber.services.registry.schema import hubs
from kuber.signing import Identity
from kuber.wire.registry import ChallengeBody, ChallengeRequest
from kuber.wire.signing_payloads import challenge_bytes

LIFETIME = timedelta(minutes=5)  # of a challenge
_TIME, _RANDOM = 16, 32  # hex digits of a nonce, before its code

_ONLY = 1  # row of the table


class HubIdentity:
    """Key pair of a hub; the public key is its id. It is made once, and is part of the database and its backups."""

    def __init__(self, seed: bytes) -> None:
        self._identity = Identity(seed)
        self._code_key = hashlib.sha256(b"kuber nonce 1\n" + seed).digest()
        self.id = self._identity.public_key

    @classmethod
    def load_or_create(cls, database: Database) -> "HubIdentity":
        """Return the identity in this database of a registry; make one if it has none."""
        query = select(hubs.c.seed).where(hubs.c.seq == _ONLY)
        with database.read_latest() as connection:
            seed: str | None = connection.scalar(query)

        def work(connection: Connection) -> str:
            found: str | None = connection.scalar(query)
            if found is None:
                found = os.urandom(32).hex()
                connection.execute(insert(hubs), {"seq": _ONLY, "seed": found, "made_at": utc_now()})
            return found

        if seed is None:
            with database.lock("hub", "identity"):  # another registry on this database may start at the same time
                seed = database.write(work)
        return cls(bytes.fromhex(seed))

    def sign(self, message: bytes) -> str:
        """Return the hub's signature of these bytes."""
        return self._identity.sign(message)

    def challenge(self, request: ChallengeRequest, now: datetime) -> ChallengeBody:
        """Return a nonce to sign, and the hub's signature of both nonces. Nothing is stored."""
        milliseconds = int(now.timestamp() * 1000)
        text = f"{milliseconds:0{_TIME}x}{os.urandom(_RANDOM // 2).hex()}"
        nonce = text + self._code(text)
        signature = self._identity.sign(challenge_bytes(self.id, nonce, request.nonce))
        return ChallengeBody(hub=self.id, nonce=nonce, signature=signature)

    def check_nonce(self, nonce: str, now: datetime) -> None:
        """Raise NotAuthorizedError unless this hub made the nonce within the last minutes."""
        text, code = nonce[: _TIME + _RANDOM], nonce[_TIME + _RANDOM :]
        if not hmac.compare_digest(code, self._code(text)):
            raise NotAuthorizedError("The request to join signs a challenge that is not of this hub; ask it for one.")
        made_at = datetime.fromtimestamp(int(text[:_TIME], 16) / 1000, UTC)
        if abs(now - made_at) > LIFETIME:
            raise NotAuthorizedError("The request to join signs a challenge that has expired; ask for another one.")

    def _code(self, text: str) -> str:
        return hmac.digest(self._code_key, text.encode(), "sha256").hex()
