"""A hub behind the site for nginx that deploy/ ships, over TLS: what it lets through, and how."""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from kuber.client.credentials import Credentials
from kuber.client.vault import WHOLE, HttpVault
from kuber.domain.digest import Digest
from kuber.domain.query import Query
from tests.fixtures.hub import SigningRegistry, unused_port

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
    """The hub, and its port behind nginx, where localhost is the registry and 127.0.0.1 the vault."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing; `make nginx` installs it"
    hub = own_hub("--open-enrolment")
    port = unused_port()
    folder = tmp_path / "nginx"
    folder.mkdir()
    text = (DEPLOY / "kuber.conf").read_text(encoding="utf-8")
    for ours, here in {
        "127.0.0.1:5001;": f"{hub.registry.removeprefix('http://')};",
        "127.0.0.1:5002;": f"{hub.vault.removeprefix('http://')};",
        "/etc/ssl/kuber/chain.pem": str(certificate[0]),
        "/etc/ssl/kuber/key.pem": str(certificate[1]),
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "server_name registry.hub.example": "server_name localhost",
        "server_name vault.hub.example": "server_name 127.0.0.1",
        "/etc/nginx/kuber-proxy.conf": str(DEPLOY / "kuber-proxy.conf"),
    }.items():
        assert ours in text
        text = text.replace(ours, here)
    (folder / "kuber.conf").write_text(text)
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        given_up = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < given_up
            time.sleep(0.05)
        yield hub, port
        process.terminate()


def test_a_hub_behind_nginx(site, certificate, samples):
    hub, port = site
    front, back = f"https://localhost:{port}", f"https://127.0.0.1:{port}"
    me, trusted = Credentials(), ssl.create_default_context(cafile=str(certificate[0]))
    with ExitStack() as stack:
        registry = stack.enter_context(SigningRegistry(front, credentials=me, ca=certificate[0]))
        vault = stack.enter_context(HttpVault(back, credentials=me, ca=certificate[0]))
        registry.check()
        vault.check()
        member = registry.register(samples.name())
        bearer = {"Authorization": f"Bearer {me.token()}"}
        client = stack.enter_context(httpx.Client(verify=trusted, headers=bearer, trust_env=False, timeout=30))

        # Large enough to be sent in pieces, and for a buffer to be noticed.
        data = bytes(range(256)) * ((WHOLE >> 8) + 4096)
        artifact = vault.put(data)
        assert vault.get(artifact.digest) == data
        part = client.get(f"{back}/v1/blobs/{artifact.digest}", headers={"Range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, data[1000:2000])

        record = registry.publish(samples.draft(member.id, vault.put(samples.weights())), key="one")
        assert registry.discover(Query(task=samples.task.name)).items == (record,)
        assert client.get(f"{front}/v1/knowledge").headers["Content-Encoding"] == "gzip"

        # What happens is told at once, though the stream goes on.
        last = sum(line.startswith("id:") for line in client.get(f"{front}/v1/events?follow=false").text.splitlines())
        with client.stream("GET", f"{front}/v1/events", headers={"Last-Event-ID": str(last)}) as stream:
            registry.report(member.id, round=7)
            told = next(json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:"))
        assert (told["act"], told["detail"]) == ("report", {"round": 7})

        for url in (front, back):
            assert client.get(f"{url}/metrics").status_code == 403
            assert client.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{hub.registry}/metrics", trust_env=False).status_code == 200


def test_a_cut_upload_has_come_as_far_as_it_was_sent(site, certificate, samples):
    """With a buffer in between, the vault would have nothing of it."""
    _, port = site
    me, trusted = Credentials(), ssl.create_default_context(cafile=str(certificate[0]))
    with SigningRegistry(f"https://localhost:{port}", credentials=me, ca=certificate[0]) as registry:
        registry.register(samples.name())
    bearer = {"Authorization": f"Bearer {me.token()}"}
    half = bytes(3 << 20)
    back = f"https://127.0.0.1:{port}"
    with httpx.Client(base_url=back, verify=trusted, headers=bearer, trust_env=False, timeout=30) as client:
        upload = client.post(
            "/v1/uploads", json={"digest": str(Digest.of(half + half)), "size": 2 * len(half)}
        ).json()
        line = http.client.HTTPSConnection("127.0.0.1", port, context=trusted, timeout=30)
        line.putrequest("PATCH", f"/v1/uploads/{upload['id']}")
        for name, value in {**bearer, "Upload-Offset": "0", "Content-Length": str(2 * len(half))}.items():
            line.putheader(name, value)
        line.endheaders()
        line.send(half)
        given_up = time.monotonic() + 20
        come = 0
        while come < len(half) - (1 << 20):
            assert time.monotonic() < given_up, come
            time.sleep(0.1)
            come = int(client.head(f"/v1/uploads/{upload['id']}").headers["Upload-Offset"])
        line.close()
