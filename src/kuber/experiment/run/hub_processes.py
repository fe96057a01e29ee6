"""A registry and a vault of one's own, as two processes that end with ours."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kuber.client.admin import AdminClient
from kuber.client.credentials import TOKEN_FILE
from kuber.data.datasets import Echo
from kuber.domain.address import is_loopback, url_of
from kuber.domain.auth import OPERATOR_TOKEN_FILE
from kuber.errors import ServiceError

STOP_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HubProcesses:
    """The addresses of a running registry and vault, and the processes behind them."""

    registry: str
    vault: str
    processes: tuple[subprocess.Popen[str], ...]
    token: str  # the operator's

    def invitation(self, name: str, folder: Path) -> str | None:
        """What the entity of this name joins with; None when its folder says that it has joined."""
        if (folder / TOKEN_FILE).exists():
            return None
        with AdminClient(self.registry, self.token) as operator:
            return operator.invite(name)

    def check(self) -> None:
        """Raises ServiceError when one of the two has ended."""
        for name, process in zip(("vault", "registry"), self.processes, strict=True):
            if process.poll() is not None:
                raise ServiceError(f"The {name} ended unexpectedly (exit code {process.returncode}); see its log.")


@contextmanager
def running_hub(folder: Path, *, host: str, registry_port: int, vault_port: int) -> Iterator[HubProcesses]:
    """Start both services with their data and logs in `folder`, and stop them on leaving.

    Port 0 takes any free one. Raises ServiceError when a given port is occupied or a service does not come up.
    """
    # Each of the two is told where the other one is, so the registry's port is chosen before it starts.
    registry_port = _free_port(host, registry_port)
    if vault_port:
        _free_port(host, vault_port)
    shared = ["--host", host, "--secret", str(folder / "secret")]
    if not is_loopback(host):
        shared.append("--plain-http")
    registry_url = url_of(host, registry_port)
    started: list[subprocess.Popen[str]] = []
    try:
        vault = _start("vault", folder, [*shared, "--port", str(vault_port), "--registry", registry_url], started)
        registry = _start("registry", folder, [*shared, "--port", str(registry_port), "--vault", vault], started)
        token = (folder / "registry" / OPERATOR_TOKEN_FILE).read_text(encoding="ascii").strip()
        yield HubProcesses(registry=registry, vault=vault, processes=tuple(started), token=token)
    finally:
        # The registry first: it talks to the vault until it ends.
        for process in reversed(started):
            _stop(process)


@contextmanager
def running_dashboard(hub: HubProcesses, *, token: Path, runs: Path, log: Path, echo: Echo) -> Iterator[None]:
    """Serve the pages of this hub in a process of its own, to this machine alone, and stop it on leaving.

    `echo` is called, from a thread, with its address when it is up, or with why it is not: nothing waits for it.
    """
    options = ["--registry", hub.registry, "--vault", hub.vault, "--admin-token", str(token), "--runs-dir", str(runs)]
    options += ["--port", "0"]
    process = _process("dashboard", options, log)

    def tell() -> None:
        assert process.stdout is not None
        address = _address(process)
        echo(f"The dashboard is at {address}." if address else f"The dashboard did not start; {log} says why.")

    teller = threading.Thread(target=tell, name="dashboard", daemon=True)
    teller.start()
    try:
        yield
    finally:
        _stop(process)
        teller.join(STOP_SECONDS)


def _free_port(host: str, port: int) -> int:
    """The port, if it is free; any free one for 0."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServiceError(f"Port {port} on {host} is not free ({reason}); choose another one.") from None
        found: int = probe.getsockname()[1]
        return found


def _start(service: str, folder: Path, options: list[str], started: list[subprocess.Popen[str]]) -> str:
    """Start one service, add it to `started`, and return its address once it accepts connections."""
    log = folder / f"{service}.log"
    folder.mkdir(parents=True, exist_ok=True)
    process = _process(service, [*options, "--data", str(folder / service)], log)
    started.append(process)
    address = _address(process)
    if address is None:
        raise ServiceError(f"The {service} did not start; {log} says why.")
    return address


def _process(command: str, options: list[str], log: Path) -> subprocess.Popen[str]:
    """A command of ours as a process that ends with us."""
    with log.open("a", encoding="utf-8") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "kuber", command, *options, "--stop-with-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C reaches us, and we stop the services last
        )


def _address(process: subprocess.Popen[str]) -> str | None:
    """Where it accepts connections, once it does; None when it ends before."""
    assert process.stdout is not None
    line = process.stdout.readline()
    return line.rsplit(maxsplit=1)[-1] if " is up at " in line else None


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()  # --stop-with-stdin
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
