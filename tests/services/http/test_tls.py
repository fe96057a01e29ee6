"""A hub over HTTPS, and requests that are refused without it."""

from contextlib import ExitStack

import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.errors import ServiceUnavailableError, SettingsError
from tests.fixtures.commands import called
from tests.fixtures.hub import running_hub


@pytest.fixture(scope="module")
def secure_hub(process, certificate, tmp_path_factory):
    """A hub over HTTPS, which at its stop does not wait for clients whose connections are idle."""
    folder = tmp_path_factory.mktemp("secure")
    chain, key = map(str, certificate)
    tls = ("--certificate", chain, "--private-key", key, "--ca", chain)
    with running_hub(folder, "--open-enrolment", tls=tls) as hub:
        yield hub
    for service in ("registry", "vault"):
        assert "shutdown exceeded" not in (folder / f"{service}.log").read_text()


def test_a_hub_over_https(secure_hub, certificate):
    me = Credentials()
    assert secure_hub.registry.startswith("https://127.0.0.1:")
    with ExitStack() as stack:
        registry = stack.enter_context(HttpRegistry(secure_hub.registry, credentials=me, ca=certificate[0]))
        vault = stack.enter_context(HttpVault(secure_hub.vault, credentials=me, ca=certificate[0]))
        registry.check()
        assert registry.register("somebody").name == "somebody"
        artifact = vault.put(b"bytes")  # the vault checks the token with the registry, over HTTPS too
        assert vault.get(artifact.digest) == b"bytes"


def test_an_untrusted_certificate_is_refused(secure_hub):
    for url in (secure_hub.registry, secure_hub.registry.replace("https", "http")):
        with HttpRegistry(url, patience=0) as registry, pytest.raises(ServiceUnavailableError):
            registry.check()


def test_a_file_without_certificates_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match="cannot be used"):
            HttpRegistry("https://127.0.0.1:1", ca=path)


def refused(folder, *options):
    done = called(*options, "--port", "0", "--data", folder / "data", "--secret", folder / "secret")
    assert done.returncode == 2, done.stderr
    assert not (folder / "data").exists()
    return done.stderr


@pytest.mark.parametrize("service", ["registry", "vault"])
def test_serving_other_machines_requires_tls(tmp_path, service):
    assert "--certificate" in refused(tmp_path, service, "--host", "0.0.0.0")


def test_open_enrolment_is_refused_when_other_machines_are_served(tmp_path):
    assert "kuber hub invite" in refused(
        tmp_path, "registry", "--host", "0.0.0.0", "--plain-http", "--open-enrolment"
    )


def test_a_certificate_requires_its_own_key(tmp_path, certificate):
    chain, key = map(str, certificate)
    assert "--certificate and --private-key together" in refused(tmp_path, "vault", "--certificate", chain)
    assert "cannot be used for TLS" in refused(tmp_path, "vault", "--certificate", key, "--private-key", chain)
