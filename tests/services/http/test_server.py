"""The services as processes: address line, graceful stop, occupied port, imports."""

import json
import signal
import socket

import httpx
import pytest

from tests.fixtures.commands import finished

pytestmark = pytest.mark.process
KINDS = ["vault", "registry"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_gracefully_on_a_signal(start, tmp_path, kind, number):
    service = start(kind, "--data", str(tmp_path / "data"))
    assert service.line == f"KUber {kind} is up at {service.url}"
    assert service.client.get("/healthz").status_code == 200  # the connection stays open
    service.process.send_signal(number)
    assert service.process.wait() == 0
    assert service.process.stdout.read() == ""
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert lines[-1]["message"] == "stopped"


@pytest.mark.parametrize("kind", KINDS)
def test_stops_when_its_input_ends(start, tmp_path, kind):
    service = start(kind, "--data", str(tmp_path / "data"))
    service.process.stdin.close()
    assert service.process.wait() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_occupied_port_is_an_error_in_one_sentence(tmp_path, kind):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = finished(kind, "--port", str(port), "--data", str(tmp_path / "data"))
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: The {kind} cannot listen on 127.0.0.1:{port} (Address already in use);")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_an_unknown_host_is_an_error_in_one_sentence(tmp_path):
    done = finished(
        "vault", "--host", "256.256.256.256", "--plain-http", "--port", "0", "--data", str(tmp_path / "data")
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)


def test_a_folder_in_use_is_an_error_in_one_sentence(start, tmp_path):
    start("vault", "--data", str(tmp_path / "data"))
    done = finished("vault", "--port", "0", "--data", str(tmp_path / "data"))
    assert done.returncode == 4
    assert "in use by another service" in done.stderr.splitlines()[-1]


def test_a_wrong_vault_address_is_an_error_in_one_sentence(tmp_path):
    done = finished("registry", "--port", "0", "--vault", "nowhere", "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "is not the address of a vault" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_loads_no_torch(start, tmp_path, kind):
    script = tmp_path / "print_imports.py"
    script.write_text(
        "import sys\nfrom kuber.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print('loaded', sorted({'torch', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)))\n"
    )
    service = start(kind, "--data", str(tmp_path / "data"), program=(str(script),))
    httpx.get(f"{service.url}/openapi.json", trust_env=False).raise_for_status()
    service.process.send_signal(signal.SIGTERM)
    service.process.wait()
    assert service.process.stdout.read() == "loaded []\n"
