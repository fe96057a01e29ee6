"""A hub behind nginx, over TLS, with the configuration from deploy/."""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import SINGLE_REQUEST_BYTES, HttpVault
from kuber.domain.digest import Digest
from kuber.domain.query import Query
from kuber.errors import ServiceUnavailableError
from tests.fixtures.hub import SigningRegistry, unused_port
from tests.fixtures.waiting import LIMIT, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy" / "nginx"
MAIN = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; {user}
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/kuber.conf;
}}
"""


@pytest.fixture
def site(own_hub, tmp_path, certificate):
    """Hub and its port behind nginx, where the name localhost is the registry and 127.0.0.1 the vault."""
    hub = own_hub("--open-enrolment")
    with nginx(tmp_path, certificate, hub.registry, hub.vault) as port:
        yield hub, port


@contextmanager
def nginx(tmp_path, certificate, registry, vault, *, limits=True):
    """Run nginx, with the configuration of deploy/, in front of these services; yield its port."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing; `make nginx` installs it"
    port = unused_port()
    folder = tmp_path / "nginx"
    folder.mkdir()
    text = (DEPLOY / "kuber.conf").read_text(encoding="utf-8")
    for original, replacement in {
        "127.0.0.1:5001;": f"{registry.removeprefix('http://')};",
        "127.0.0.1:5002;": f"{vault.removeprefix('http://')};",
        "/etc/ssl/kuber/chain.pem": str(certificate[0]),
        "/etc/ssl/kuber/key.pem": str(certificate[1]),
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "server_name registry.hub.example": "server_name localhost",
        "server_name vault.hub.example": "server_name 127.0.0.1",
        "/etc/nginx/kuber-proxy.conf": str(DEPLOY / "kuber-proxy.conf"),
        "/etc/nginx/kuber-unavailable.conf": str(DEPLOY / "kuber-unavailable.conf"),
    }.items():
        assert original in text
        text = text.replace(original, replacement)
    if not limits:
        text = "\n".join(line for line in text.splitlines() if "client_max_body_size" not in line)
    (folder / "kuber.conf").write_text(text)
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        wait_until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), "nginx to listen")
        try:
            yield port
        finally:
            process.terminate()


def test_a_hub_behind_nginx(site, certificate, samples):
    hub, port = site
    registry_url, vault_url = f"https://localhost:{port}", f"https://127.0.0.1:{port}"
    me, trusted = Credentials(), ssl.create_default_context(cafile=str(certificate[0]))
    with ExitStack() as stack:
        registry = stack.enter_context(SigningRegistry(registry_url, credentials=me, ca=certificate[0]))
        vault = stack.enter_context(HttpVault(vault_url, credentials=me, ca=certificate[0]))
        registry.check()
        vault.check()
        member = registry.register(samples.name())
        bearer = {"Authorization": f"Bearer {me.token()}"}
        client = stack.enter_context(httpx.Client(verify=trusted, headers=bearer, trust_env=False, timeout=LIMIT))

        # Large enough to be sent as an upload, and for a buffering proxy to be noticed.
        data = bytes(range(256)) * ((SINGLE_REQUEST_BYTES >> 8) + 4096)
        artifact = vault.put(data)
        assert vault.get(artifact.digest) == data
        part = client.get(f"{vault_url}/v1/blobs/{artifact.digest}", headers={"Range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, data[1000:2000])

        record = registry.publish(samples.draft(member.id, vault.put(samples.weights())), key="one")
        assert registry.discover(Query(task=samples.task.name)).items == (record,)
        assert client.get(f"{registry_url}/v1/knowledge").headers["Content-Encoding"] == "gzip"

        # Events arrive at once, although the stream stays open.
        last = sum(
            line.startswith("id:") for line in client.get(f"{registry_url}/v1/events?follow=false").text.splitlines()
        )
        with client.stream("GET", f"{registry_url}/v1/events", headers={"Last-Event-ID": str(last)}) as stream:
            registry.report(member.id, round=7)
            event = next(json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:"))
        assert (event["act"], event["detail"]) == ("report", {"round": 7})

        for url in (registry_url, vault_url):
            assert client.get(f"{url}/metrics").status_code == 403
            assert client.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{hub.registry}/metrics", trust_env=False).status_code == 200


def test_an_upload_keeps_what_was_sent_before_a_lost_connection(site, certificate, samples):
    """A buffering proxy would have passed nothing on to the vault."""
    _, port = site
    me, trusted = Credentials(), ssl.create_default_context(cafile=str(certificate[0]))
    with SigningRegistry(f"https://localhost:{port}", credentials=me, ca=certificate[0]) as registry:
        registry.register(samples.name())
    bearer = {"Authorization": f"Bearer {me.token()}"}
    half = bytes(3 << 20)
    vault_url = f"https://127.0.0.1:{port}"
    with httpx.Client(base_url=vault_url, verify=trusted, headers=bearer, trust_env=False, timeout=LIMIT) as client:
        upload = client.post(
            "/v1/uploads", json={"digest": str(Digest.of(half + half)), "size": 2 * len(half)}
        ).json()
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusted, timeout=LIMIT)
        connection.putrequest("PATCH", f"/v1/uploads/{upload['id']}")
        for name, value in {**bearer, "Upload-Offset": "0", "Content-Length": str(2 * len(half))}.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(half)

        def received() -> bool:
            offset = client.head(f"/v1/uploads/{upload['id']}").headers["Upload-Offset"]
            return int(offset) >= len(half) - (1 << 20)

        wait_until(received, "the first half of the upload")
        connection.close()


@pytest.mark.process
def test_services_that_do_not_run_are_unavailable(tmp_path, certificate):
    """nginx says so with an error of ours, and the clients wait."""
    closed = f"http://127.0.0.1:{unused_port()}"
    with nginx(tmp_path, certificate, closed, closed) as port:
        for client in (
            HttpRegistry(f"https://localhost:{port}", ca=certificate[0], patience=0),
            HttpVault(f"https://127.0.0.1:{port}", ca=certificate[0], patience=0),
        ):
            with client, pytest.raises(ServiceUnavailableError) as caught:
                client.check()
            assert caught.value.message == "The service behind this address does not answer now; try again."
            assert caught.value.retry_after == 1
        with (
            HttpVault(f"https://127.0.0.1:{port}", ca=certificate[0], patience=0) as vault,
            pytest.raises(ServiceUnavailableError, match="does not answer now"),
        ):
            vault.put(bytes(4 << 20))


@pytest.mark.process
def test_a_proxy_with_its_usual_limit_takes_a_model_in_parts(own_hub, tmp_path, certificate, samples):
    """Without client_max_body_size, nginx takes bodies of 1 MiB."""
    hub = own_hub("--open-enrolment")
    with nginx(tmp_path, certificate, hub.registry, hub.vault, limits=False) as port:
        me = Credentials()
        with (
            SigningRegistry(f"https://localhost:{port}", credentials=me, ca=certificate[0]) as registry,
            HttpVault(f"https://127.0.0.1:{port}", credentials=me, ca=certificate[0]) as vault,
        ):
            registry.register(samples.name())
            for data in (bytes(range(256)) * 10_000, bytes(range(256)) * (SINGLE_REQUEST_BYTES >> 7)):
                assert vault.get(vault.put(data).digest) == data
