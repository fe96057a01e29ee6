"""Services as processes, valid blobs and records, and timing in pairs, for the benchmarks of a hub."""

import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from kuber.client.record_signature import sign
from kuber.domain.digest import Digest
from kuber.domain.evaluation import Evaluation
from kuber.domain.knowledge import WEIGHTS, Architecture, Artifact, Draft, TensorSpec
from kuber.domain.task import Task
from kuber.signing import Identity

MIB = 1 << 20
TEST_SET = Digest.of(b"common test set")
TASK = Task(name="bench", labels=tuple("abcdefghij"), input_shape=(3, 32, 32), test_set=TEST_SET)


def weights(size: int, numbers: Callable[[int], bytes] = os.urandom) -> bytes:
    """Return a valid safetensors file of about `size` bytes, with incompressible numbers."""
    count = size // 4
    header = json.dumps({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    body = bytearray(numbers(4 * count))
    body[3::4] = bytes(0x3F for _ in range(count))  # exponents of numbers near 1, so that all are finite
    return len(header).to_bytes(8, "little") + header + bytes(body)


_PATCHED = (
    "from unittest.mock import patch; from kuber.cli import main; {}; main()"  # a name that is gone is an error
)

# The services with a commit for each write.
ONE_BY_ONE = _PATCHED.format("patch('kuber.services.db.database.MAX_GROUP', 1).start()")

# The services without the request metrics.
UNCOUNTED = _PATCHED.format(
    "[patch('kuber.services.http.metrics.' + name, lambda *_, **__: None).start() for name in "
    "('Metrics.count_start', 'Metrics.count_end', 'Presence.note')]"
)


@contextmanager
def hub(folder: Path, program: tuple[str, ...] = ("-m", "kuber"), port: int = 0) -> Iterator[tuple[str, str]]:
    """Run a registry and a vault with open enrolment and without limits; yield their addresses.

    `port` is the registry's, 0 for any free one. Raises OSError if it is occupied.
    """
    with socket.create_server(("127.0.0.1", port)) as probe:
        port = probe.getsockname()[1]
    with ExitStack() as stack:

        def start(name: str, *options: str) -> str:
            return stack.enter_context(service(folder, name, *options, program=program))[0]

        vault = start("vault", "--port", "0", "--registry", f"http://127.0.0.1:{port}", "--collect-every", "0")
        registry = start("registry", "--port", str(port), "--vault", vault, "--open-enrolment")
        yield registry, vault


@contextmanager
def service(
    folder: Path, name: str, *options: str, program: tuple[str, ...] = ("-m", "kuber")
) -> Iterator[tuple[str, int]]:
    """Start a registry or a vault; return its address and the id of the process."""
    command = [sys.executable, *program, name, "--stop-with-stdin", "--requests-per-minute", "0"]
    command += ["--data", str(folder / name), "--secret", str(folder / "secret")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    # In a session of its own: Ctrl-C reaches the users of the hub, which ends after them.
    with subprocess.Popen([*command, *options], text=True, start_new_session=True, **pipes) as process:
        try:
            yield process.stdout.readline().split()[-1], process.pid
        finally:
            process.stdin.close()


def listener(url: str) -> psutil.Process:
    """Return the process that listens at this address."""
    port = int(url.rpartition(":")[2])
    return next(
        psutil.Process(connection.pid)
        for connection in psutil.net_connections("tcp")
        if connection.status == "LISTEN" and connection.laddr.port == port
    )


def pairs(ours: Callable[[], object], theirs: Callable[[], object], times: int) -> tuple[float, float]:
    """Return the median seconds of both, measured alternately after a warm-up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(times + 1):
        for place, do in enumerate((ours, theirs)):
            start = time.perf_counter()
            do()
            if turn:
                seconds[place].append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def report(line: str, target: str, **figures: object) -> None:
    print(json.dumps({"line": line, "target": target} | figures), flush=True)


def draft(
    entity: str, artifact: Artifact, sequence: int, identity: Identity | None = None, hub: str | None = None
) -> Draft:
    """Return a record like those of entities, signed for this hub if there is an identity."""
    correct = tuple(secrets.randbelow(200) for _ in TASK.labels)
    made = Draft(
        entity=entity,
        task=TASK,
        architecture=ARCHITECTURE,
        artifacts={WEIGHTS: artifact},
        evaluation=Evaluation(test_set=TEST_SET, correct=correct, total=(200,) * len(correct)),
        round=1,
        sequence=sequence if identity else 0,
    )
    return sign(made, identity, hub=hub) if identity else made


SMALL = weights(4096)
ARCHITECTURE = Architecture(name="bench", arguments={}, manifest={"w": TensorSpec(dtype="F32", shape=(1024,))})
