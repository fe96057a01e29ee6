"""Changing the key that an entity is known by: the old one vouches for the new one."""

from dataclasses import replace
from pathlib import Path

from kuber.client.credentials import KEY_FILE, TOKEN_FILE, Credentials
from kuber.client.http import Trusted
from kuber.client.registry import HttpRegistry
from kuber.domain.member import Key, Member
from kuber.errors import ConflictError, ServiceError, SettingsError
from kuber.signing import Identity
from kuber.wire import succession_bytes

NEXT_FILE = "key.next"  # beside the key, from before the registry is asked until it takes the place of the old one


def change_key(folder: Path, name: str, registry: str, *, patience: float = 10.0, ca: Trusted = None) -> Member:
    """Let the entity of this name, whose identity is in `folder`, sign with a new key; returns what it is known by.

    The new key is on disk before the registry hears of it, so a change that was interrupted anywhere is finished by
    changing again. What the entity has signed and not published yet is refused afterwards. Raises SettingsError when
    there is no key to change, ConflictError when the name belongs to another key.
    """
    if not (folder / KEY_FILE).exists():
        raise SettingsError(f"There is no key in {folder} to change; an entity gets one when it first joins.")
    old, new = Identity.load_or_create(folder / KEY_FILE), Identity.load_or_create(folder / NEXT_FILE)

    def known_as(identity: Identity) -> HttpRegistry:
        credentials = Credentials(identity, path=folder / TOKEN_FILE)
        return HttpRegistry(registry, credentials=credentials, patience=patience, ca=ca)

    try:
        with known_as(old) as port:
            member = port.register(name)
            key = Key(public_key=new.public_key, since=member.sequence + 1)
            member = port.change_key(member.id, replace(key, signature=old.sign(succession_bytes(member.id, key))))
    except ConflictError:  # the registry has taken it already, and we were interrupted
        with known_as(new) as port:
            member = port.register(name)
    try:
        (folder / NEXT_FILE).replace(folder / KEY_FILE)
    except OSError as error:
        raise ServiceError(f"The new key cannot take its place in {folder}: {error.strerror}.") from None
    return member
