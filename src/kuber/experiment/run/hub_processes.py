"""The registry and the vault of a run, as child processes."""

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
    """The addresses and processes of a running registry and vault."""

    registry: str
    vault: str
    processes: tuple[subprocess.Popen[str], ...]
    token: str  # the operator's

    def invitation(self, name: str, folder: Path) -> str | None:
        """Return an invitation for the entity of this name, or None if its folder shows that it has joined."""
        if (folder / TOKEN_FILE).exists():
            return None
        with AdminClient(self.registry, self.token) as operator:
            return operator.invite(name)

    def check(self) -> None:
        """Raise ServiceError if one of the services has ended."""
        for name, process in zip(("vault", "registry"), self.processes, strict=True):
            if process.poll() is not None:
                raise ServiceError(f"The {name} ended unexpectedly (exit code {process.returncode}); see its log.")


@contextmanager
def running_hub(folder: Path, *, host: str, registry_port: int, vault_port: int) -> Iterator[HubProcesses]:
    """Run both services with their data and logs in `folder` until the context ends.

    Port 0 takes any free port. Raises ServiceError if a given port is occupied or a service does not start.
    """
    # Each service needs the address of the other, so the registry's port is chosen before it starts.
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
        # The registry first: it calls the vault until it ends.
        for process in reversed(started):
            _stop(process)


@contextmanager
def running_dashboard(hub: HubProcesses, *, token: Path, runs: Path, log: Path, echo: Echo) -> Iterator[None]:
    """Run the dashboard of this hub as a child process, for this machine only, until the context ends.

    Does not wait for it: `echo` is called from a thread with its address, or with where its error is logged.
    """
    options = ["--registry", hub.registry, "--vault", hub.vault, "--admin-token", str(token), "--runs-dir", str(runs)]
    options += ["--port", "0"]
    process = _process("dashboard", options, log)

    def report() -> None:
        assert process.stdout is not None
        address = _address(process)
        echo(f"The dashboard is at {address}." if address else f"The dashboard did not start; see {log}.")

    reporter = threading.Thread(target=report, name="dashboard", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        _stop(process)
        reporter.join(STOP_SECONDS)


def _free_port(host: str, port: int) -> int:
    """Return the port if it is free; any free port for 0."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServiceError(f"Port {port} on {host} is not free ({reason}); choose another port.") from None
        number: int = probe.getsockname()[1]
        return number


def _start(service: str, folder: Path, options: list[str], started: list[subprocess.Popen[str]]) -> str:
    """Start one service, add it to `started`, and return its address once it accepts connections."""
    log = folder / f"{service}.log"
    folder.mkdir(parents=True, exist_ok=True)
    process = _process(service, [*options, "--data", str(folder / service)], log)
    started.append(process)
    address = _address(process)
    if address is None:
        raise ServiceError(f"The {service} did not start; see {log}.")
    return address


def _process(command: str, options: list[str], log: Path) -> subprocess.Popen[str]:
    """Start a `kuber` command as a process that ends with this one."""
    with log.open("a", encoding="utf-8") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "kuber", command, *options, "--stop-with-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C must not reach services: they are stopped last
        )


def _address(process: subprocess.Popen[str]) -> str | None:
    """Wait until a service accepts connections, and return its address; None if it ends before."""
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
