import math
import socket
import ssl
from contextlib import closing, contextmanager
from datetime import timedelta
from http.server import HTTPServer, SimpleHTTPRequestHandler
from threading import Thread

import httpx
import pytest

from kuber.client import http
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.errors import ServiceUnavailableError
from kuber.services.registry.vault_client import RegistryVault
from kuber.transport.connection_errors import connection_error
from tests.fixtures.certificates import write_certificate

SECRET = "s" * 40


@contextmanager
def serving_tls(certificate):
    """Start a server with this certificate; yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    class Server(HTTPServer):
        connections = 0

        def get_request(self):
            self.connections += 1
            connection, address = super().get_request()
            return context.wrap_socket(connection, server_side=True), address

        def handle_error(self, request, address):
            pass

    with Server(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def message(service, url, **options):
    make = {"registry": HttpRegistry, "vault": HttpVault}[service]
    with make(url, **options) as client, pytest.raises(ServiceUnavailableError) as caught:
        client.check()
    return caught.value.message


@pytest.mark.parametrize("service", ["registry", "vault"])
def test_a_certificate_without_its_authority_is_not_trusted(certificate, environment, service):
    """It is said at once: patience does not change it."""
    with serving_tls(certificate) as server:
        url = f"https://127.0.0.1:{server.server_port}"
        assert message(service, url, patience=60) == (
            f"The certificate of the {service} at {url} is not trusted: self-signed certificate; give its authority "
            "with --ca, in Python with ca=."
        )
        assert server.connections == 1


def test_an_expired_certificate_is_not_trusted(tmp_path, environment):
    expired = write_certificate(tmp_path, expires=timedelta(days=-1))
    with serving_tls(expired) as server:
        url = f"https://127.0.0.1:{server.server_port}"
        assert message("vault", url, ca=expired[0]) == (
            f"The certificate of the vault at {url} is not trusted: certificate has expired; have it renewed, or "
            "correct the clock of this machine."
        )


def test_a_certificate_of_another_name_is_not_trusted(tmp_path, environment):
    other = write_certificate(tmp_path, host="hub.example")
    with serving_tls(other) as server:
        for host in ("localhost", "127.0.0.1"):
            text = message("vault", f"https://{host}:{server.server_port}", ca=other[0])
            assert "is not trusted: " in text
            assert text.endswith("; give the address with the name that the certificate is for.")


def test_https_to_a_service_without_it_is_one_sentence(script, reply):
    url = script(reply()).url.replace("http://", "https://")
    assert message("registry", url) == f"The registry at {url} does not use TLS: give its address with http://."


def test_a_service_of_a_hub_names_the_certificate_of_the_other(certificate, environment):
    with serving_tls(certificate) as server:
        url = f"https://127.0.0.1:{server.server_port}"
        with closing(RegistryVault(url, SECRET)) as vault, pytest.raises(ServiceUnavailableError) as caught:
            vault.unpin("holder")
    assert caught.value.message.startswith(f"The certificate of the registry's vault at {url} is not trusted: ")


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (
            socket.EAI_NONAME,
            "There is no host hub.example: correct the address of the registry, http://hub.example:5001.",
        ),
        (
            socket.EAI_AGAIN,
            "The name hub.example cannot be resolved now: check the network of this machine, or correct the address "
            "of the registry, http://hub.example:5001.",
        ),
    ],
)
def test_a_name_without_a_host_is_one_sentence(monkeypatch, environment, number, sentence):
    def fail(*arguments, **options):
        raise socket.gaierror(number, "no name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert message("registry", "http://hub.example:5001", patience=0) == sentence


def test_a_service_that_is_silent_is_one_sentence(monkeypatch):
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert message("registry", url, patience=0) == (
            f"The registry at {url} did not answer within 0.2 s: check its address and its load."
        )


def test_an_address_that_is_silent_is_one_sentence():
    request = httpx.Request("GET", "http://192.0.2.1:5001", extensions={"timeout": {"connect": 5, "read": 60}})
    error = httpx.ConnectTimeout("timed out", request=request)
    assert connection_error(error, "vault", request.url, command="kuber vault").message == (
        "The vault at http://192.0.2.1:5001 did not answer within 5 s: check its address and its load."
    )


def test_a_network_without_the_address_is_one_sentence(monkeypatch):
    def fail(*arguments, **options):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", fail)
    assert message("registry", "http://127.0.0.1:5001", patience=0) == (
        "No connection to the registry at http://127.0.0.1:5001 (network is unreachable): check the network."
    )


def test_a_connection_that_is_closed_is_one_sentence(script, reply):
    url = script(reply(status=None)).url
    assert message("registry", url, patience=0) == (
        f"The registry at {url} closed the connection: is it still running, or does it use https://?"
    )


def test_only_a_certificate_makes_a_retry_vain(unused_url):
    with HttpRegistry(unused_url, patience=0) as registry, pytest.raises(ServiceUnavailableError) as caught:
        registry.check()
    assert caught.value.retry_after < math.inf
