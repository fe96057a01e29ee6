"""Hubs that an identity has joined: their ids, addresses and tokens, in a file beside the key."""

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from kuber.domain.address import is_loopback
from kuber.domain.auth import is_token
from kuber.domain.member import HUB_LENGTH, check_hex
from kuber.errors import ConflictError, ServiceError
from kuber.files import atomic_replacement
from kuber.signing import write_secret

HUBS_FILE = "hubs.json"  # in an entity's folder

log = logging.getLogger("kuber")


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownHub:
    """Addresses of a hub's registry, and the last token that it issued."""

    addresses: tuple[str, ...]
    token: str | None = field(default=None, repr=False)


class KnownHubs:
    """The hubs in one file. A token is sent to no other hub than the one that issued it."""

    def __init__(self, path: Path, *, may_move: bool = False) -> None:
        """With `may_move` a hub is accepted at any address: who starts it knows where it is."""
        self.path = path
        self._may_move = may_move

    def at(self, url: str) -> str | None:
        """Return the id of the hub that is known at this address of a registry, if any."""
        address = address_of(url)
        return next((id for id, known in self._read().items() if address in known.addresses), None)

    def token(self, url: str) -> str | None:
        """Return the token of the hub at this address, if it has issued one."""
        hubs, id = self._read(), self.at(url)
        return None if id is None else hubs[id].token

    def check(self, id: str, url: str) -> None:
        """Check that the hub with this id, which has proved it, is where it was.

        Warns when another hub was at the address. Raises ConflictError when the hub was at another address: this one
        may only pass on what the hub answers, to be let in there as this entity.
        """
        address, hubs = address_of(url), self._read()
        if id in hubs and address not in hubs[id].addresses and not self._may_move:
            before = ", ".join(hubs[id].addresses)
            raise ConflictError(
                f"The registry at {url} says that it is hub {id[:12]}, which this entity knows at {before}. If that "
                f"hub is at both addresses or has moved, add {address} to its addresses in {self.path}; if not, "
                "somebody is using it to act as this entity."
            )
        former = self.at(url)
        if former not in (None, id):
            log.warning(
                "The registry at %s is hub %s now, and was hub %s before: it was set up anew, or is another one. "
                "Nothing that was signed for the one is valid at the other.",
                url,
                id[:12],
                str(former)[:12],
            )

    def take(self, id: str, url: str, token: str) -> None:
        """Keep the token and the address of a hub. Raises OSError when the file cannot be written."""
        address = address_of(url)
        hubs = {
            other: replace(known, addresses=tuple(place for place in known.addresses if place != address))
            for other, known in self._read().items()
            if other != id
        }
        before = self._read().get(id, KnownHub(addresses=()))
        addresses = before.addresses if address in before.addresses else (*before.addresses, address)
        if self._may_move:
            addresses = (address,)
        hubs[id] = KnownHub(addresses=addresses, token=token)
        self._write({other: known for other, known in hubs.items() if known.addresses})

    @property
    def addresses(self) -> tuple[str, ...]:
        """One address of each hub."""
        return tuple(known.addresses[0] for known in self._read().values() if known.addresses)

    def _read(self) -> dict[str, KnownHub]:
        try:
            fields: Any = json.loads(self.path.read_bytes())
            hubs = {}
            for id, known in fields["hubs"].items():
                check_hex(id, HUB_LENGTH, "the id of a hub")
                token, addresses = known.get("token"), tuple(known["addresses"])
                if not all(isinstance(text, str) for text in addresses) or not (token is None or is_token(token)):
                    raise ValueError("no address or no token")
                hubs[id] = KnownHub(addresses=tuple(map(address_of, addresses)), token=token)
            return hubs
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ServiceError(f"The file {self.path} cannot be read: {error.strerror}.") from None
        except (ValueError, KeyError, TypeError, AttributeError, httpx.InvalidURL):
            raise ServiceError(
                f"{self.path} does not list the hubs that this entity has joined; move the file away."
            ) from None

    def _write(self, hubs: dict[str, KnownHub]) -> None:
        fields = {id: {"addresses": known.addresses, "token": known.token} for id, known in hubs.items()}
        with atomic_replacement(self.path) as new:
            write_secret(new, json.dumps({"hubs": fields}, indent=2) + "\n")


def address_of(url: str) -> str:
    """Return the address of a registry in one form: this machine has many names for itself."""
    parsed = httpx.URL(url)
    return str(parsed.copy_with(host="localhost") if is_loopback(parsed.host) else parsed).rstrip("/")
