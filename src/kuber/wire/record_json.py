"""Records of a registry as JSON, quickly also with thousands of tensors."""

import json
from dataclasses import replace
from itertools import islice
from typing import Any

from kuber.domain.knowledge import Knowledge
from kuber.wire.registry import DraftBody, KnowledgeBody

FEW = 100  # tensors

_MANIFEST = '"manifest":'


def published_json(body: DraftBody, record: Knowledge) -> bytes:
    """Return the JSON of a record that was just made of this draft, whose parts are valid."""
    parts: dict[str, Any] = {name: getattr(body, name) for name in DraftBody.model_fields}
    parts |= {"id": record.id, "published_at": record.published_at, "copy_of": record.copy_of}
    return KnowledgeBody.model_construct(**parts).model_dump_json().encode()


def record_json(record: Knowledge) -> bytes:
    """Return a stored record as JSON, as `KnowledgeBody.of(record).model_dump_json()` would.

    A model would check each tensor again, which takes ten times as long as to write it.
    """
    architecture = record.architecture
    if len(architecture.manifest) <= FEW:
        return KnowledgeBody.of(record).model_dump_json().encode()
    few = replace(architecture, manifest=dict(islice(architecture.manifest.items(), 1)))
    text = KnowledgeBody.of(replace(record, architecture=few)).model_dump_json()
    # In a text of JSON these characters are escaped, so they are the key, which only an architecture has.
    start = text.index(_MANIFEST + "{") + len(_MANIFEST)
    _, end = json.JSONDecoder().raw_decode(text, start)
    tensors = {name: {"dtype": spec.dtype, "shape": spec.shape} for name, spec in architecture.manifest.items()}
    manifest = json.dumps(tensors, separators=(",", ":"), ensure_ascii=False)
    return f"{text[:start]}{manifest}{text[end:]}".encode()
