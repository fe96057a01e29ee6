"""Storage of a vault as the tests see it from outside: to list, read, damage and delete blobs."""

import re
from pathlib import Path

import httpx

from kuber.services.vault.s3 import S3Storage
from kuber.services.vault.s3_client import Bucket
from kuber.services.vault.storage import ID_NAME
from kuber.services.vault.store import VaultStore
from tests.fixtures.databases import new_sqlite


def key(digest, under="blobs"):
    return f"blobs/{digest.hex[:2]}/{digest.hex[2:4]}/{digest.hex}" if under == "blobs" else f"{under}/{digest.hex}"


class Folder:
    """Files in the vault's own folder."""

    staging = "incoming"

    def __init__(self, folder: Path):
        self.folder = new_sqlite(folder / "vault.sqlite", "vault").parent

    def store(self, **options):
        return VaultStore(self.folder, **options)

    def names(self):
        """Return the names of all files but the index."""
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
    """Objects in a bucket; the index is in a folder."""

    staging = "staging"

    def __init__(self, folder: Path, url: str, endpoint: str):
        self.folder = new_sqlite(folder / "vault.sqlite", "vault").parent
        self.url = url
        self._bucket = Bucket(url)
        self._uploads = f"{endpoint}/{url.removeprefix('s3://').partition('/')[0]}?uploads"

    def store(self, *, expiry=None, **options):
        expiry_option = {} if expiry is None else {"expiry": expiry}
        return VaultStore(self.folder, storage=S3Storage(Bucket(self.url), **expiry_option), **options)

    def names(self):
        """Return the keys of all objects but the storage id, and of unfinished multipart uploads."""
        authorization = (
            "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        )
        listing = httpx.get(self._uploads, headers={"Authorization": authorization}, trust_env=False, verify=False)
        listing.raise_for_status()
        unfinished = [f"unfinished {name}" for name in re.findall("<Key>(.*?)</Key>", listing.text)]
        return sorted([*unfinished, *(found.key for found in self._bucket.objects("") if found.key != ID_NAME)])

    def read(self, name):
        return b"".join(self._bucket.get(name)[1])

    def write(self, name, data):
        self._bucket.put(name, data)

    def remove(self, name):
        self._bucket.delete(name)
