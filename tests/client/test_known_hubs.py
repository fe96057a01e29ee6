"""Hubs that an identity knows: which token goes where, and who passes for whom."""

import json
import stat

import pytest

from kuber.client.credentials import TOKEN_FILE, Credentials
from kuber.client.known_hubs import HUBS_FILE, KnownHubs, address_of
from kuber.client.registry import HttpRegistry
from kuber.errors import ConflictError, KUberError, ServiceError
from kuber.signing import Identity
from kuber.wire.registry import ChallengeBody
from kuber.wire.signing_payloads import challenge_bytes

A, B = "a" * 64, "b" * 64
AT_A, AT_B = "https://a.example", "https://b.example:5001"


@pytest.fixture
def hubs(tmp_path):
    return KnownHubs(tmp_path / HUBS_FILE)


def at(url, folder):
    """The credentials in a folder, used with the registry at this URL."""
    credentials = Credentials(path=folder / TOKEN_FILE)
    credentials.use_at(url)
    return credentials


def test_a_token_goes_only_to_the_hub_that_issued_it(tmp_path):
    for hub, url in ((A, AT_A), (B, AT_B)):
        at(url, tmp_path).take("entity", f"token-of-{hub[0]}", lambda: None, hub=hub)
    assert at(AT_A, tmp_path).token() == "token-of-a"
    assert at(AT_B, tmp_path).token() == "token-of-b"
    assert at("https://new.example", tmp_path).token() is None
    assert at(f"{AT_A}/", tmp_path).hub == A
    assert stat.S_IMODE((tmp_path / HUBS_FILE).stat().st_mode) == 0o600


def test_the_token_of_an_older_folder_is_used_further(tmp_path):
    (tmp_path / TOKEN_FILE).write_text("old")
    assert at(AT_A, tmp_path).token() == "old"
    at(AT_A, tmp_path).take("entity", "new", lambda: None, hub=A)
    assert at(AT_A, tmp_path).token() == "new"
    assert at(AT_B, tmp_path).token() is None


def test_a_hub_that_shows_up_elsewhere_is_refused_until_the_owner_says_so(hubs):
    hubs.check(A, AT_A)
    hubs.take(A, AT_A, "token")
    hubs.check(A, AT_A)
    with pytest.raises(ConflictError, match=r"which this entity knows at https://a\.example\. If that .*hubs\.json"):
        hubs.check(A, AT_B)
    hubs.check(B, AT_B)
    fields = json.loads(hubs.path.read_text())
    fields["hubs"][A]["addresses"].append(AT_B)
    hubs.path.write_text(json.dumps(fields))
    hubs.check(A, AT_B)
    assert hubs.token(AT_B) == "token"


def test_another_hub_at_the_same_address_is_a_warning(hubs, caplog):
    hubs.take(A, AT_A, "token")
    hubs.check(B, AT_A)
    assert "is hub bbbbbbbbbbbb now, and was hub aaaaaaaaaaaa before" in caplog.text
    hubs.take(B, AT_A, "anew")
    assert (hubs.at(AT_A), hubs.addresses) == (B, (address_of(AT_A),))


def test_a_hub_of_this_program_may_move(tmp_path):
    hubs = KnownHubs(tmp_path / HUBS_FILE, may_move=True)
    for port in (5001, 6001):
        hubs.check(A, f"http://127.0.0.1:{port}")
        hubs.take(A, f"http://127.0.0.1:{port}", "token")
    assert hubs.addresses == ("http://localhost:6001",)


def test_this_machine_has_one_name():
    places = ("http://127.0.0.1:5001", "http://localhost:5001/", "http://[::1]:5001")
    assert {address_of(place) for place in places} == {"http://localhost:5001"}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"hubs": {"x": {"addresses": []}}}', f'{{"hubs": {{"{A}": {{"addresses": [1]}}}}}}']
)
def test_a_damaged_file_is_one_sentence(hubs, text):
    hubs.path.write_text(text)
    with pytest.raises(ServiceError, match="does not list the hubs"):
        hubs.token(AT_A)


def health():
    return b'{"status":"ok","service":"registry","protocol":1,"version":"x"}'


def test_a_registry_that_proves_no_id_is_refused_and_learns_nothing(script, reply, tmp_path):
    (tmp_path / TOKEN_FILE).write_text("secret")
    liar = Identity.generate()
    body = ChallengeBody(hub=A, nonce=B, signature=liar.sign(challenge_bytes(A, B, "0" * 64)))
    service = script(reply(status=201, body=body.model_dump_json().encode()))
    with HttpRegistry(service.url, credentials=Credentials(path=tmp_path / TOKEN_FILE), patience=0) as registry:
        with pytest.raises(ServiceError, match="does not prove that it is hub aaaaaaaaaaaa"):
            registry.register("ward 7")
        service.replies[:] = [reply(body=health())]
        registry.check()
    assert [path for _, path, _ in service.requests] == ["/v1/challenges", "/healthz"]
    assert not any("authorization" in headers for _, _, headers in service.requests)


def test_a_registry_of_an_older_version_is_one_sentence(script, reply):
    problem = (
        b'{"type":"about:blank","title":"x","status":404,"detail":"There is no route.","code":"request-rejected"}'
    )
    service = script(reply(status=404, body=problem))
    with (
        HttpRegistry(service.url, patience=0) as registry,
        pytest.raises(ServiceError, match="does not prove which hub it is, as older versions do not"),
    ):
        registry.register("ward 7")


def test_whoever_passes_on_the_challenge_of_a_known_hub_is_refused(hub, script, reply, samples, tmp_path):
    """A hub that asks another one for its proof, to be let in there as the entity that joins it."""
    name, path = samples.name(), tmp_path / TOKEN_FILE
    with HttpRegistry(hub.registry, credentials=Credentials(path=path)) as registry:
        registry.register(name)

    class Relay(HttpRegistry):
        """The client's connection to the other hub: its requests end at the known one."""

        def request(self, method, path, **options):
            with HttpRegistry(hub.registry) as behind:
                return behind.request(method, path, **options)

    with Relay("http://127.0.0.1:1", credentials=Credentials(path=path), patience=0) as registry:
        with pytest.raises(ConflictError, match="somebody is using it to act as this entity"):
            registry.register(name)
        with pytest.raises(KUberError):
            registry.register(samples.name("another"))
