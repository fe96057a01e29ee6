"""Public keys that an entity has pinned, read from its folder without loading its model."""

import json
from collections.abc import Mapping
from pathlib import Path

from kuber.domain.member import PUBLIC_KEY_LENGTH, check_hex
from kuber.domain.safetensors_header import PREFIX_LENGTH, header_length
from kuber.errors import CorruptKnowledgeError

CHECKPOINT = "checkpoint.safetensors"


def read_pinned_keys(folder: Path) -> Mapping[str, str]:
    """Return the last known public key of each entity that the entity of this folder has learned from, by id.

    Without a checkpoint there are none. Raises CorruptKnowledgeError when the checkpoint cannot be read.
    """
    path = folder / CHECKPOINT
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(header_length(file.read(PREFIX_LENGTH))))
        keys = json.loads(header["__metadata__"]["state"])["keys"]
        for key in keys.values():
            check_hex(key, PUBLIC_KEY_LENGTH, "a public key")
        return {str(entity): key for entity, key in keys.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CorruptKnowledgeError(
            f"The keys that {path} has pinned cannot be read; name another folder with --identity."
        ) from None
