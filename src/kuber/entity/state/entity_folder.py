"""Folder of an entity with a custom loop: its default path, and the right to use it, of one object at a time."""

import errno
import fcntl
import gc
import hashlib
import json
import logging
import os
import re
import weakref
from contextlib import suppress
from pathlib import Path

from kuber.entity.state.event_log import FILE_NAME
from kuber.errors import SettingsError
from kuber.files import try_lock, write_atomically

log = logging.getLogger("kuber")

ROOT = Path("entities")
LOCK_FILE = "entity.lock"
NAME_FILE = "entity.json"
MAX_BYTES = 100  # of a folder's name; file systems take 255, encrypting ones 143

# Lower case only: some file systems do not tell cases apart.
_PLAIN = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$))[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_-])?")


def default_folder(name: str) -> Path:
    """Return the folder of an entity of this name, below entities/; another for every name.

    A plain name is that of its folder; any other is quoted and gets a digest. A folder of an earlier version, whose
    event log has this name, is used further.
    """
    former = ROOT / re.sub(r"[^\w.-]", "_", name)
    folder = ROOT / quoted(name)
    if former != folder and not folder.exists() and former.name not in ("..", ".", "") and _owner(former) == name:
        return former
    return folder


def claim_folder(name: str, folder: Path | str | None) -> tuple[Path, "FolderClaim"]:
    """Return the folder that an owner has chosen for an entity of this name, or the default one, and its claim.

    Raises SettingsError naming `folder`.
    """
    if folder is not None and not isinstance(folder, str | Path):
        raise SettingsError(f"folder is a {type(folder).__name__}; give a path.")
    if folder == "":  # which would be the working directory
        raise SettingsError("folder is empty; give a path, or None for entities/NAME.")
    try:
        home = default_folder(name) if folder is None else Path(folder).expanduser()
    except RuntimeError as error:
        raise SettingsError(f"folder {folder} cannot be used: {error}") from None
    return home, FolderClaim(home, name)


def quoted(name: str) -> str:
    """Return a file name for any text, at most 100 bytes long, and another one for every text."""
    if _PLAIN.fullmatch(name) and len(name) <= MAX_BYTES:
        return name
    readable = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_")[:60]
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{readable}~{digest}"  # no plain name has a tilde


class FolderClaim:
    """The right of one object to use a folder for the entity of one name, until `release` or the end of either."""

    def __init__(self, folder: Path, name: str) -> None:
        """Create the folder if necessary, and lock it.

        Raises SettingsError naming `folder` when it cannot be written, belongs to another name, or is in use.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise SettingsError(f"folder {folder} cannot be used: {error.strerror}; pass another folder.") from None
        except ValueError:
            raise SettingsError(f"folder is {str(folder)!r}, which is no path; pass another folder.") from None
        self._release = weakref.finalize(self, _close, descriptor, os.getpid())
        try:
            self._lock(descriptor, folder)
            self._check_name(folder, name)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others use the folder. Idempotent."""
        self._release()

    def _lock(self, descriptor: int, folder: Path) -> None:
        try:
            if try_lock(descriptor):
                return
            gc.collect()  # an object that nothing refers to any more may still hold it
            if try_lock(descriptor):
                return
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            log.warning("The folder %s has no locks; let one process use it at a time.", folder)
            return
        raise SettingsError(
            f"folder {folder} is in use by another Entity, here or in another process; close() that one first, or "
            "pass another folder."
        )

    def _check_name(self, folder: Path, name: str) -> None:
        owner = _owner(folder)
        if owner is not None and owner != name:
            raise SettingsError(
                f"folder {folder} is that of entity {owner!r}, not of {name!r}; pass another folder, or that name."
            )
        if not (folder / NAME_FILE).exists():
            content = json.dumps({"name": name}, ensure_ascii=False).encode(errors="surrogatepass")
            try:
                write_atomically(folder / NAME_FILE, content, durable=False)
            except OSError as error:
                raise SettingsError(
                    f"folder {folder} cannot be written: {error.strerror}; pass another folder."
                ) from None


def _owner(folder: Path) -> str | None:
    """Return the name of the entity that a folder belongs to, from its record or, in older ones, from its log."""
    try:
        owner = json.loads((folder / NAME_FILE).read_bytes())["name"]
        return owner if isinstance(owner, str) else None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        with (folder / FILE_NAME).open("rb") as file:
            for line in file:
                owner = json.loads(line).get("entity")
                if isinstance(owner, str):
                    return owner
    except (OSError, ValueError, AttributeError):
        pass
    return None


def _close(descriptor: int, process: int) -> None:
    if os.getpid() == process:  # not in a forked worker, which has the same lock
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
