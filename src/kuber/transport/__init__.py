"""HTTP connections of entities and services: proxies and certificates, and what their failures mean."""
