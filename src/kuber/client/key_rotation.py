"""Replace the signing key of an entity; the old key signs the new one."""

from dataclasses import replace
from pathlib import Path

from kuber.client.credentials import KEY_FILE, TOKEN_FILE, Credentials
from kuber.client.http import Trusted
from kuber.client.known_hubs import HUBS_FILE, KnownHubs
from kuber.client.registry import HttpRegistry
from kuber.domain.member import Key, Member
from kuber.errors import ConflictError, ServiceError, SettingsError
from kuber.signing import Identity
from kuber.wire.signing_payloads import succession_bytes

NEXT_FILE = "key.next"  # beside the key, until the registry has accepted it


def change_key(folder: Path, name: str, registry: str, *, patience: float = 10.0, ca: Trusted = None) -> Member:
    """Replace the key, in `folder`, of the entity of this name; return the member with its keys.

    The new key is on disk before it is sent, so calling this again completes an interrupted change. Records that were
    signed with the old key and not yet published are refused afterwards. Raises SettingsError when there is no key to
    replace, ConflictError when the name belongs to another key.
    """
    if not (folder / KEY_FILE).exists():
        raise SettingsError(f"There is no key in {folder} to replace; an entity gets one when it first joins.")
    places = KnownHubs(folder / HUBS_FILE).addresses
    if len(places) > 1:
        raise SettingsError(
            f"The key in {folder} is used at several hubs ({', '.join(places)}), and would change at one only; give "
            f"each hub an identity of its own (--identity), or remove a hub that is gone from {folder / HUBS_FILE}."
        )
    old, new = Identity.load_or_create(folder / KEY_FILE), Identity.load_or_create(folder / NEXT_FILE)

    def registry_as(identity: Identity) -> HttpRegistry:
        credentials = Credentials(identity, path=folder / TOKEN_FILE)
        return HttpRegistry(registry, credentials=credentials, patience=patience, ca=ca)

    try:
        with registry_as(old) as port:
            member = port.register(name)
            key = Key(public_key=new.public_key, since=member.sequence + 1, hub=port.hub_id())
            member = port.change_key(member.id, replace(key, signature=old.sign(succession_bytes(member.id, key))))
    except ConflictError:  # the registry accepted it before an interruption
        with registry_as(new) as port:
            member = port.register(name)
    try:
        (folder / NEXT_FILE).replace(folder / KEY_FILE)
    except OSError as error:
        raise ServiceError(f"The new key cannot be moved to its place in {folder}: {error.strerror}.") from None
    return member
