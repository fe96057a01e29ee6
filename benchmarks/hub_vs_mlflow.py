"""Registry and vault compared with MLflow's tracking server and artifact proxy, driven by the same programs.

MLflow runs in an environment of its own, with metadata in SQLite, artifacts in a folder, and one worker process, as
each of our services has. `curl` sends and fetches 256 MiB alternately; `wrk` reads one record with 32 connections.
Our requests carry a token that is checked; those to MLflow carry none.

    python -m venv mlflow && mlflow/bin/pip install mlflow==3.17.2
    python benchmarks/hub_vs_mlflow.py --mlflow mlflow/bin/mlflow
"""

import argparse
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from hub_site import MIB, SMALL, draft, hub, pairs, report, weights

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.digest import Digest


@contextmanager
def mlflow(program: Path, folder: Path) -> Iterator[str]:
    """Run a server on a new folder; yield its address."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "a")]
    with (folder / "log").open("w") as log:
        environment = os.environ | {"PYTHONPATH": ""}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{url}/health", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


def curl(*arguments: str) -> None:
    subprocess.run(["curl", "-sf", "-o", "/dev/null", "-H", "Expect:", *arguments], check=True)


def rate(url: str, *headers: str) -> float:
    """Return the responses per second to 32 connections."""
    wrk = ["wrk", "-t1", "-c32", "-d3s", *headers, url]
    output = subprocess.run(wrk, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in output, output
    return float(output.partition("Requests/sec:")[2].split()[0])


def logged_run(url: str) -> str:
    """Create a run with about as much metadata as a record of ours."""
    api = f"{url}/api/2.0/mlflow"
    with httpx.Client(trust_env=False) as client:
        run = client.post(f"{api}/runs/create", json={"experiment_id": "0", "start_time": 0}).json()["run"]
        id: str = run["info"]["run_id"]
        metrics = [{"key": f"accuracy_{label}", "value": 0.5, "timestamp": 0, "step": 0} for label in "abcdefghij"]
        params = [{"key": f"param_{number}", "value": str(number)} for number in range(10)]
        batch = {"run_id": id, "metrics": metrics, "params": params}
        client.post(f"{api}/runs/log-batch", json=batch).raise_for_status()
    return id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlflow", type=Path, required=True, help="MLflow's program, in its own environment")
    parser.add_argument("--times", type=int, default=7)
    args = parser.parse_args()
    if not args.mlflow.is_file():
        parser.error(f"{args.mlflow} does not exist; install MLflow as described above")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        registry_url, vault_url = stack.enter_context(hub(folder / "hub"))
        peer = stack.enter_context(mlflow(args.mlflow.absolute(), folder / "mlflow"))
        me = Credentials()
        registry = stack.enter_context(HttpRegistry(registry_url, credentials=me))
        vault = stack.enter_context(HttpVault(vault_url, credentials=me))
        member = registry.register("bench")
        record = registry.publish(draft(member.id, vault.put(SMALL), 1, me.identity, registry.hub_id()), key="one")
        bearer = f"Authorization: Bearer {me.token()}"
        data = weights(256 * MIB)
        (folder / "blob").write_bytes(data)
        blob = f"{vault_url}/v1/blobs/{Digest.of(data)}"
        artifact = f"{peer}/api/2.0/mlflow-artifacts/artifacts/blob"
        for line, ours, theirs in (
            (
                "upload",
                lambda: curl("-T", str(folder / "blob"), "-H", bearer, blob),
                lambda: curl("-T", str(folder / "blob"), artifact),
            ),
            ("download", lambda: curl("-H", bearer, blob), lambda: curl(artifact)),
        ):
            our, their = pairs(ours, theirs, args.times)
            report(f"{line} 256 MiB / MLflow", ">= 4", ratio=their / our, ours=our, theirs=their)
        run = f"{peer}/api/2.0/mlflow/runs/get?run_id={logged_run(peer)}"
        rates: tuple[list[float], list[float]] = ([], [])
        for turn in range(args.times + 1):
            pair = rate(f"{registry_url}/v1/knowledge/{record.id}", "-H", bearer), rate(run)
            for place, measured in enumerate(pair if turn else ()):
                rates[place].append(measured)
        our, their = map(statistics.median, rates)
        report("point reads per second / MLflow", ">= 20", ratio=our / their, ours=our, theirs=their)


if __name__ == "__main__":
    main()
