"""Fixtures of the tests of services."""

from .processes import enrolled, hub_services, published_body, registry_service, start, vault_service
from .stores import draft, draft_of, entity, place, registry_store, safetensors, stores, vault_place, vault_store

__all__ = [
    "draft",
    "draft_of",
    "enrolled",
    "entity",
    "hub_services",
    "place",
    "published_body",
    "registry_service",
    "registry_store",
    "safetensors",
    "start",
    "stores",
    "vault_place",
    "vault_service",
    "vault_store",
]
