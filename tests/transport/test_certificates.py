import ssl

import httpx
import pytest

from kuber.client.registry import HttpRegistry
from kuber.errors import SettingsError
from kuber.services.registry.vault_client import RegistryVault
from kuber.transport.certificates import trusted
from kuber.transport.clients import http_client
from tests.fixtures.commands import called

SECRET = "s" * 40


def authorities(context):
    return [dict(pair[0] for pair in found["subject"]).get("commonName") for found in context.get_ca_certs()]


def test_a_file_replaces_or_adds_to_the_usual_authorities(certificate, environment):
    usual = authorities(trusted(None))
    assert len(usual) > 50
    assert authorities(trusted(certificate[0])) == ["hub"]
    assert sorted(map(str, authorities(trusted(certificate[0], also_usual=True)))) == sorted(
        map(str, [*usual, "hub"])
    )


def test_the_environment_names_the_usual_authorities(certificate, environment):
    environment(SSL_CERT_FILE=certificate[0])
    assert authorities(trusted(None)) == ["hub"]
    environment(SSL_CERT_FILE="", SSL_CERT_DIR=certificate[0].parent)
    assert trusted(None).verify_mode is ssl.CERT_REQUIRED  # folders are read when a server shows its certificate


@pytest.mark.parametrize("kind", ["missing", "empty", "folder"])
def test_a_stale_variable_is_one_sentence(tmp_path, environment, kind):
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    environment(SSL_CERT_FILE=tmp_path / kind)
    with pytest.raises(
        SettingsError, match=r"^The variable SSL_CERT_FILE names \S+, whose certificates cannot be used"
    ):
        HttpRegistry("https://hub.example")


def test_a_stale_folder_is_one_sentence(tmp_path, environment):
    environment(SSL_CERT_DIR=tmp_path / "missing")
    with pytest.raises(SettingsError, match=r"^The variable SSL_CERT_DIR names \S+, .* \(there is no such folder\)"):
        HttpRegistry("https://hub.example")


def test_a_command_ends_with_the_sentence(environment, tmp_path):
    token = tmp_path / "token"
    token.write_text("t" * 43)
    environment(SSL_CERT_FILE="/nowhere/certificates.pem")
    done = called("knowledge", "list", "--registry", "https://192.0.2.1:5001", "--admin-token", str(token))
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert "variable SSL_CERT_FILE names /nowhere/certificates.pem" in sentence


def test_an_own_authority_needs_no_variable(certificate, environment):
    environment(SSL_CERT_FILE="/nowhere", REQUESTS_CA_BUNDLE="/nowhere", CURL_CA_BUNDLE="/nowhere")
    HttpRegistry("https://hub.example", ca=certificate[0]).close()


def test_plain_http_reads_no_certificates(environment, monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("certificates are read")

    for name in ("load_verify_locations", "load_default_certs", "set_default_verify_paths"):
        monkeypatch.setattr(ssl.SSLContext, name, fail)
    environment(SSL_CERT_FILE="/nowhere", SSL_CERT_DIR="/nowhere", HTTP_PROXY="http://proxy.example:3128")
    HttpRegistry("http://hub.example", ca="/nowhere").close()
    RegistryVault("http://vault.example", SECRET).close()
    http_client(httpx.URL("http://bucket.example"), also_usual=True).close()
