"""A small disk that fills up: status 507, nothing is lost, and writes work again when there is space."""

import os
import resource
import shutil
import subprocess
from contextlib import closing

import pytest

from kuber.domain.digest import Digest
from kuber.errors import InsufficientStorageError
from kuber.services.vault.store import VaultStore

from .processes import Applicant

SIZE = 6 << 20


@pytest.fixture
def small_disk(tmp_path):
    """Folder on a tmpfs of a few megabytes; None where mounting is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def put(client, data):
    return client.put(f"/v1/blobs/{Digest.of(data)}", content=data)


def refused(answer):
    assert (answer.status_code, answer.json()["code"]) == (507, "insufficient-storage"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return True


def test_a_blob_beyond_a_limit_on_files_is_507(tmp_path, monkeypatch):
    """Runs everywhere, also where nothing can be mounted."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(VaultStore(tmp_path / "vault")) as store:
        kept = store.put(b"kept")
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
            with pytest.raises(InsufficientStorageError, match="no space"):
                store.put(bytes(2 << 20))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list((tmp_path / "vault" / "incoming").iterdir()) == []
        assert store.get(kept.digest) == b"kept"
        assert store.put(bytes(2 << 20)).size == 2 << 20


def test_a_full_disk_is_507_and_recovers(small_disk, start):
    if small_disk is None:
        pytest.xfail("no file system can be mounted here; the limit on files stands in for it")
    client = start("vault", "--data", str(small_disk / "vault")).client
    kept = os.urandom(1 << 20)
    assert put(client, kept).status_code == 201
    large = os.urandom(SIZE)
    assert refused(put(client, large))
    assert list((small_disk / "vault" / "incoming").iterdir()) == []
    announced = client.post("/v1/uploads", json={"digest": str(Digest.of(large)), "size": len(large)}).json()
    assert refused(client.patch(f"/v1/uploads/{announced['id']}", content=large, headers={"Upload-Offset": "0"}))
    assert client.head(f"/v1/uploads/{announced['id']}").status_code == 200
    assert client.get(f"/v1/blobs/{Digest.of(kept)}").content == kept


def test_a_database_without_space_is_507_and_recovers(small_disk, start):
    if small_disk is None:
        pytest.xfail("no file system can be mounted here")
    vault = start("vault", "--data", str(small_disk / "vault"), "--collect-every", "0").client
    registry = start(
        "registry", "--data", str(small_disk / "registry"), "--vault", str(vault.base_url), "--open-enrolment"
    ).client
    acknowledged = []
    assert registry.post("/v1/entities", json=Applicant().enrolment("before")).status_code == 201
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    for number in range(50):
        answer = registry.post("/v1/entities", json=Applicant().enrolment(f"entity {number}"))
        if answer.status_code != 201:
            break
        acknowledged.append(f"entity {number}")
    assert refused(answer)
    small = os.urandom(64)
    answers = [put(vault, small) for _ in range(3)]
    assert all(answer.status_code == 201 or refused(answer) for answer in answers)
    filler.unlink()
    assert registry.post("/v1/entities", json=Applicant().enrolment("after")).status_code == 201
    assert put(vault, small).status_code in (200, 201)
    assert vault.get(f"/v1/blobs/{Digest.of(small)}").content == small
    names = {item["name"] for item in registry.get("/v1/entities", params={"limit": 1000}).json()["items"]}
    assert names == {"before", "after", *acknowledged}
