"""The two places where the bytes of a vault may lie, looked at and harmed from outside, by what is between."""

import re
from pathlib import Path

import httpx

from kuber.services.vault.s3 import S3Storage
from kuber.services.vault.s3_client import Bucket
from kuber.services.vault.storage import ID_NAME
from kuber.services.vault.store import VaultStore


def key(digest, under="blobs"):
    return f"blobs/{digest.hex[:2]}/{digest.hex[2:4]}/{digest.hex}" if under == "blobs" else f"{under}/{digest.hex}"


class Folder:
    """A vault's own folder."""

    staging = "incoming"

    def __init__(self, folder: Path):
        self.folder = folder

    def store(self, **options):
        return VaultStore(self.folder, **options)

    def names(self):
        """All that lies there but the index."""
        found = [path for path in self.folder.rglob("*") if path.is_file() and "sqlite" not in path.name]
        return sorted(str(path.relative_to(self.folder)) for path in found)

    def read(self, name):
        return (self.folder / name).read_bytes()

    def write(self, name, data):
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(data)

    def remove(self, name):
        (self.folder / name).unlink()


class S3Bucket:
    """A bucket, and a folder for the index."""

    staging = "staging"

    def __init__(self, folder: Path, url: str, endpoint: str):
        self.folder = folder
        self.url = url
        self._bucket = Bucket(url)
        self._uploads = f"{endpoint}/{url.removeprefix('s3://').partition('/')[0]}?uploads"

    def store(self, *, expiry=None, **options):
        given = {} if expiry is None else {"expiry": expiry}
        return VaultStore(self.folder, storage=S3Storage(Bucket(self.url), **given), **options)

    def names(self):
        """All that lies there but the mark, and what was begun to be sent and is hidden."""
        allowed = (
            "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        )
        begun = httpx.get(self._uploads, headers={"Authorization": allowed}, trust_env=False, verify=False)
        begun.raise_for_status()
        hidden = [f"unfinished {name}" for name in re.findall("<Key>(.*?)</Key>", begun.text)]
        return sorted([*hidden, *(each.key for each in self._bucket.objects("") if each.key != ID_NAME)])

    def read(self, name):
        return b"".join(self._bucket.get(name)[1])

    def write(self, name, data):
        self._bucket.put(name, data)

    def remove(self, name):
        self._bucket.delete(name)
