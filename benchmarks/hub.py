"""Speed of a hub, over plain HTTP and with tokens checked, compared with plain programs that do the same.

Everything is measured in interleaved pairs within one run. Prints the medians of `--times` measurements and their
ratio, one JSON object per line. The download needs `nginx`. `--only` selects the lines to run.

    python benchmarks/hub.py --times 7
"""

import argparse
import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from hub_records import counting, discovery, publications, publishes, publishes_over_http, reads
from hub_site import MIB, hub, listener, pairs, report, weights

from kuber.client.credentials import Credentials
from kuber.client.registry import HttpRegistry
from kuber.client.vault import HttpVault
from kuber.domain.digest import Digest


def transfers(folder: Path, times: int, wanted: Callable[[str], bool]) -> None:
    """Measure download, verified pull and upload of 256 MiB, and the memory that an upload of 1 GiB takes."""
    data = weights(256 * MIB)
    digest = Digest.of(data)
    with hub(folder / "hub") as (registry_url, vault_url), ExitStack() as stack:
        me = Credentials()
        registry = stack.enter_context(HttpRegistry(registry_url, credentials=me))
        vault = stack.enter_context(HttpVault(vault_url, credentials=me, patience=60))
        registry.register("bench")
        vault.put(data)
        bearer = {"Authorization": f"Bearer {me.token()}"}
        client = stack.enter_context(httpx.Client(headers=bearer, trust_env=False, timeout=60))

        def curl(url: str) -> None:
            header = f"Authorization: Bearer {me.token()}"
            subprocess.run(["curl", "-sf", "-H", header, "-o", "/dev/null", url], check=True)

        blob = f"{vault_url}/v1/blobs/{digest}"
        if wanted("download"):
            if shutil.which("nginx"):
                with nginx(folder, data) as beside:
                    ours, theirs = pairs(lambda: curl(blob), lambda: curl(beside), times)
                    report("download 256 MiB / nginx", ">= 0.8", ratio=theirs / ours, ours=ours, theirs=theirs)
            else:
                report("download 256 MiB / nginx", ">= 0.8", missing="nginx")
        if wanted("pull"):

            def raw() -> None:
                with client.stream("GET", blob) as response:
                    for _ in response.iter_raw():
                        pass

            ours, theirs = pairs(lambda: vault.get(digest), raw, times)
            report("verified pull / raw download", ">= 0.6", ratio=theirs / ours, ours=ours, theirs=theirs)
        if wanted("upload"):
            source = folder / "source"
            sinks = (folder / f"sink-{number}" for number in range(times + 1))  # the vault creates files, too

            def upload() -> None:
                vault.put(source.read_bytes())

            def copy() -> None:
                sink = next(sinks)
                shutil.copyfile(source, sink)
                with sink.open("rb+") as file:
                    os.fsync(file.fileno())
                with sink.open("rb") as file:
                    hashlib.file_digest(file, "sha256")

            fresh = bytearray(data)
            seconds: tuple[list[float], list[float]] = ([], [])
            for turn in range(times + 1):
                fresh[-8:-5] = turn.to_bytes(3, "little")  # a known blob would not be sent again
                source.write_bytes(fresh)
                os.sync()  # else the first fsync would write this file, too
                for place, do in ((0, upload), (1, copy)) if turn % 2 else ((1, copy), (0, upload)):
                    start = time.perf_counter()
                    do()
                    if turn:
                        seconds[place].append(time.perf_counter() - start)
            ours, theirs = map(statistics.median, seconds)
            report("upload 256 MiB / cp + sync + sha256", ">= 0.7", ratio=theirs / ours, ours=ours, theirs=theirs)
        if wanted("memory"):
            process = listener(vault_url)
            before, peak, ended = process.memory_info().rss, 0, threading.Event()

            def watch() -> None:
                nonlocal peak
                while not ended.is_set():
                    peak = max(peak, process.memory_info().rss)
                    time.sleep(0.02)

            sampler = threading.Thread(target=watch)
            sampler.start()
            vault.put(weights(1024 * MIB))
            ended.set()
            sampler.join()
            report("vault's memory growth, upload of 1 GiB", "< 32 MiB", mebibytes=(peak - before) / MIB)


@contextmanager
def nginx(folder: Path, data: bytes) -> Iterator[str]:
    """Serve the same bytes by nginx with sendfile; yield the address of the file."""
    root = folder / "nginx"
    (root / "html").mkdir(parents=True)
    (root / "html" / "blob").write_bytes(data)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (root / "nginx.conf").write_text(
        f"daemon off; user root; pid {root}/pid; error_log {root}/error.log; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; sendfile on; client_body_temp_path {root}/t1; proxy_temp_path {root}/t2;\n"
        f"fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n"
        f"server {{ listen 127.0.0.1:{port}; root {root}/html; }} }}\n"
    )
    process = subprocess.Popen(["nginx", "-p", str(root), "-c", str(root / "nginx.conf")])
    try:
        time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/blob"
    finally:
        process.terminate()
        process.wait(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument(
        "--only", default="download,pull,upload,memory,reads,metrics,publishes,http,publications,discovery"
    )
    args = parser.parse_args()
    chosen = set(args.only.split(","))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen & {"download", "pull", "upload", "memory"}:
            transfers(folder / "transfers", args.times, chosen.__contains__)
        for line, measure in (
            ("reads", reads),
            ("metrics", counting),
            ("publishes", publishes),
            ("http", publishes_over_http),
            ("publications", publications),
        ):
            if line in chosen:
                (folder / line).mkdir()
                measure(folder / line, args.times)
        if "discovery" in chosen:
            (folder / "discovery").mkdir()
            discovery(folder / "discovery", args.times, args.records)


if __name__ == "__main__":
    main()
