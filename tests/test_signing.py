"""Ed25519 keys and signatures."""

import stat

import pytest

from kuber.errors import CorruptKnowledgeError, ServiceError
from kuber.signing import Identity, check_signature

# RFC 8032, section 7.1, test 2
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_signatures_are_those_of_the_standard():
    identity = Identity(SEED)
    assert identity.public_key == PUBLIC
    assert identity.sign(b"\x72") == SIGNATURE
    check_signature(PUBLIC, SIGNATURE, b"\x72", "The message")


@pytest.mark.parametrize(
    ("key", "signature", "message"),
    [
        (PUBLIC, SIGNATURE, b"\x73"),
        (PUBLIC, "00" * 64, b"\x72"),
        (PUBLIC, "", b"\x72"),
        (PUBLIC, "no hex", b"\x72"),
        ("00" * 31, SIGNATURE, b"\x72"),
        (Identity(b"another" + bytes(25)).public_key, SIGNATURE, b"\x72"),
    ],
)
def test_any_other_signature_is_refused(key, signature, message):
    with pytest.raises(CorruptKnowledgeError, match="The message is not signed with the key of its entity"):
        check_signature(key, signature, message, "The message")


def test_only_its_owner_can_read_a_key_file(tmp_path):
    path = tmp_path / "folder" / "key"
    first = Identity.load_or_create(path)
    assert Identity.load_or_create(path).public_key == first.public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.public_key not in path.read_text()


def test_a_file_that_holds_no_key_is_refused(tmp_path):
    (tmp_path / "key").write_text("not a key")
    with pytest.raises(ServiceError, match="holds no key"):
        Identity.load_or_create(tmp_path / "key")
    with pytest.raises(ServiceError, match="cannot be read or written"):
        Identity.load_or_create(tmp_path)
