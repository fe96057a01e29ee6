import socket

import pytest

from kuber.wire import PROTOCOL
from kuber.wire.registry import HealthBody

HEALTH = HealthBody(status="ok", service="registry", protocol=PROTOCOL, version="1").model_dump_json().encode()


@pytest.fixture
def environment(monkeypatch):
    """Set variables of proxies and certificates, and no others."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def change(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return change


@pytest.fixture
def unused_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def proxying(script, reply):
    """Start a proxy that answers for a registry."""
    return script(reply(body=HEALTH))


@pytest.fixture
def refusing(script, reply):
    """Start a proxy that asks for a login."""
    return script(reply(status=407, headers={"Proxy-Authenticate": "Basic"}))
