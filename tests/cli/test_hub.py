"""`kuber hub` on running services."""

import io
import json
import re
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from kuber.cli.hub_backup import restore
from kuber.client import consistency
from kuber.client.admin import AdminClient
from kuber.client.consistency import compare
from kuber.client.credentials import Credentials
from kuber.client.vault import HttpVault
from kuber.domain.query import Query
from kuber.domain.verification import Standing, Verification
from kuber.errors import KnowledgeNotFoundError, NotAuthorizedError, RequestRejectedError
from tests.fixtures.commands import called
from tests.fixtures.hub import SigningRegistry, running_hub
from tests.fixtures.samples import Samples

numbers = count()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(consistency, "PUBLISHING_SECONDS", 0.0)


def kuber(*arguments):
    """Run `kuber hub`; return the exit code and the output."""
    done = called("hub", *arguments)
    return done.returncode, done.stdout + done.stderr


class Hub:
    def __init__(self, folder, samples, *options):
        self.folder, self.samples = folder, samples
        self.stack = ExitStack()
        folder.mkdir(exist_ok=True)
        keeping = options or ("--collect-every", "0", "--lease", "0", "--grace", "0")
        hub = self.stack.enter_context(running_hub(folder, "--open-enrolment", keeping=keeping))
        self.vault = self.stack.enter_context(HttpVault(hub.vault, credentials=Credentials(token=hub.secret)))
        credentials = Credentials(token=hub.operator)
        self.registry = self.stack.enter_context(SigningRegistry(hub.registry, credentials=credentials))
        self.operator = self.stack.enter_context(AdminClient(hub.registry, hub.operator))
        self.entity = self.registry.register(samples.name()).id
        self.data = ["--registry-data", folder / "registry", "--vault-data", folder / "vault"]
        token = ["--admin-token", folder / "registry" / "admin-token"]
        self.at_vault = ["--vault", hub.vault, *token]
        self.urls = ["--registry", hub.registry, *self.at_vault]

    def publish(self):
        artifact = self.vault.put(self.samples.weights())
        return self.registry.publish(self.samples.draft(self.entity, artifact), key=f"act-{next(numbers)}")

    def set_quarantine(self, id, wanted):
        if wanted:
            self.operator.quarantine(id, "It may carry a backdoor.")
        else:
            self.operator.release(id)

    def file(self, record):
        hex = record.artifacts["weights"].digest.hex
        return self.folder / "vault" / "blobs" / hex[:2] / hex[2:4] / hex


@pytest.fixture(scope="module")
def hub(process, tmp_path_factory):
    """Hub shared by these tests; each leaves registry and vault in agreement, and no unpinned blob."""
    made = Hub(tmp_path_factory.mktemp("hub"), Samples())
    with made.stack:
        yield made


def test_collect_and_check_and_repair(hub):
    record = hub.publish()
    stray = hub.vault.put(hub.samples.weights())
    check = ["check", *hub.urls, "--settled", 0]
    assert kuber("collect", *hub.at_vault) == (
        0,
        f"Removed 1 blobs ({stray.size} bytes) and 0 unfinished uploads.\n",
    )
    assert kuber(*check) == (
        0,
        "registry.sqlite and vault.sqlite are sound; no backup is known.\n"
        "1 records, 1 blobs, 1 pins; 0 disagreements.\n",
    )
    hub.vault.unpin(record.id)
    hub.vault.pin("nobody", record.artifacts.items())
    code, output = kuber(*check)
    assert code == 1
    assert f"The blobs of {record.id} are not all pinned.\n" in output
    assert "Blobs are pinned for nobody, which is not a record.\n" in output
    code, output = kuber("check", *hub.urls)
    assert "nobody" not in output  # a young pin may be of a record that is being published, for a moment
    assert (code, "The vault has pinned the blobs of 1 records within the last 3600 s" in output) == (1, True)
    code, output = kuber(*check, "--repair")
    assert (code, output.count("Repaired.")) == (0, 2)
    assert kuber(*check)[0] == 0
    assert [pin.holder for pin in hub.vault.pins().items] == [record.id]
    kuber("collect", *hub.at_vault)
    assert hub.vault.size(record.artifacts["weights"].digest)


def test_status_prints_numbers_and_which_service_does_not_answer(hub):
    code, output = kuber("status", *hub.urls)
    words = [" ".join(line.split()) for line in output.splitlines()]
    assert code == 0, output
    assert "entities 1 +1 +1" in words
    assert max(map(len, output.splitlines())) <= 80
    code, output = kuber("status", "--json", *hub.urls)
    found = json.loads(output)
    assert (code, found["registry"]["entities"]["total"]) == (0, 1)
    assert found["vault"]["blobs"]["total"] == len(hub.vault.blobs().items)
    nobody = ["--vault", "http://127.0.0.1:9"]
    code, output = kuber("status", *hub.urls, *nobody)
    assert (code, "Vault http://127.0.0.1:9: NO ANSWER" in output) == (4, True)
    assert "entities " in output
    code, output = kuber("status", "--json", *hub.urls, *nobody)
    found = json.loads(output)
    assert (code, found["vault"]["runs"], found["registry"]["blocked"]) == (4, False, 0)
    assert found["vault"]["error"].startswith("No answer from the vault at http://127.0.0.1:9")


def test_quarantine_and_release(hub):
    record = hub.publish()
    operate = ["--registry", hub.urls[1], *hub.urls[4:]]
    result = kuber("quarantine", record.id, "--reason", "It may carry a backdoor.", *operate)
    assert result == (0, f"The record {record.id} is quarantined until `kuber hub release {record.id}`.\n")
    found = Verification(standing=Standing.QUARANTINED, reason="It may carry a backdoor.")
    assert hub.registry.knowledge(record.id).verification == found
    assert record.id not in {listed.id for listed in hub.registry.discover(Query(limit=1000)).items}
    assert kuber("check", *hub.urls)[0] == 0  # its blobs are kept
    result = kuber("release", record.id, *operate)
    assert result == (0, f"The record {record.id} is no longer quarantined.\n")
    assert hub.registry.knowledge(record.id) == record
    lines = kuber("audit", *operate)[1].splitlines()
    acts = [line.split()[1:] for line in lines if line.endswith(record.id)]
    assert acts[-2:] == [["admin", "quarantined", record.id], ["admin", "released", record.id]]


def test_pins_and_unpin(hub):
    record = hub.publish()
    name = record.architecture.name
    operate = ["--registry", hub.urls[1], *hub.urls[4:]]
    code, output = kuber("pins", *operate)
    (line,) = [line for line in output.splitlines() if f" {name}(" in line]
    pin, count = line.split()[:2]
    assert (code, int(count) > 0) == (0, True)
    result = kuber("unpin", pin, *operate)
    assert result == (0, f"The pin of {name!r} is removed; its records stay, and the next one pins it again.\n")
    assert f" {name}(" not in kuber("pins", *operate)[1]
    assert hub.registry.knowledge(record.id) == record
    hub.publish()
    assert line.rsplit(" ", 1)[-1] in kuber("pins", *operate)[1]
    code, output = kuber("unpin", "nothing", *operate)
    assert (code, output) == (2, "error: There is no pin that begins with 'nothing'; `kuber hub pins` lists them.\n")


def test_short_ids_work_for_records_in_any_state_and_for_entities(hub):
    operate = ["--registry", hub.urls[1], *hub.urls[4:]]
    first, second = hub.publish().id, hub.publish().id
    assert kuber("quarantine", first[-8:], "--reason", "Because.", *operate)[0] == 0
    assert kuber("release", first[-8:], *operate) == (0, f"The record {first} is no longer quarantined.\n")
    common = first[: next(place for place in range(32) if first[place] != second[place])]
    code, output = kuber("withdraw", common, *operate)
    assert (code, output.count("\n")) == (2, 1)
    assert "is ambiguous: the ids of several records begin or end with it" in output
    for part in (second[: len(common) + 1], second[-8:]):
        assert kuber("release", part, *operate)[1] == f"The record {second} is no longer quarantined.\n"
    name = hub.registry.member(hub.entity).name
    assert kuber("audit", "--entity", hub.entity[-8:], "--action", "enrol", *operate)[1].split()[1:] == [
        name,
        "enrol",
        name,
    ]


def test_the_audit_log_shows_names_and_is_filtered(hub):
    operate = ["--registry", hub.urls[1], *hub.urls[4:]]
    record, name = hub.publish(), hub.registry.member(hub.entity).name
    code, output = kuber("audit", "--entity", name, "--action", "publish", "--since", "1h", *operate)
    assert (code, output.splitlines()[-1].split()[1:]) == (0, [name, "publish", record.id])
    lines = [json.loads(line) for line in kuber("audit", "--json", "--action", "publish", *operate)[1].splitlines()]
    assert lines[-1]["actor"] == hub.entity
    assert (lines[-1]["actor_name"], lines[-1]["subject"], lines[-1]["detail"]["round"]) == (name, record.id, 1)
    assert kuber("audit", "--since", "2199-01-01", *operate) == (0, "")
    assert kuber("audit", "--since", "soon", *operate)[0] == 2
    assert kuber("audit", "--entity", "nobody-of-this-name", *operate)[0] == 1


def test_who_is_refused_by_whom_is_shown(hub):
    operate = ["--registry", hub.urls[1], *hub.urls[4:]]
    record, publisher = hub.publish(), hub.registry.member(hub.entity).name
    total = record.evaluation.total
    nothing = replace(record.evaluation, correct=(0,) * len(total))
    for name, found in (("honest", nothing), ("another", nothing), ("friend", record.evaluation)):
        hub.registry.attest(record.id, entity=hub.registry.register(name).id, evaluation=found)
    thief = hub.registry.register("thief").id
    copy = hub.registry.publish(replace(record.draft, entity=thief, signature=None), key="copy")
    assert copy.copy_of == record.id
    code, output = kuber("suspicious", *operate)
    assert code == 0
    assert max(map(len, output.splitlines())) < 80
    text = " ".join(output.split())
    claimed = f"{record.evaluation.accuracy:.1%}"
    assert f"{publisher}: 1 refused by another, honest ({claimed} claimed, 0.0% found)" in text
    assert f"thief: 1 copied from {publisher} {copy.id}" in text
    found = [json.loads(line) for line in kuber("suspicious", "--json", *operate)[1].splitlines()]
    mine = next(each for each in found if each["knowledge"] == record.id)
    assert (mine["refused_by"], mine["agreed"], mine["found"]) == (["another", "honest"], 1, 0.0)


def test_the_invitation_of_a_taken_name_warns(hub):
    operate = ["--registry", hub.urls[1], *hub.urls[4:]]
    name = hub.registry.member(hub.entity).name
    code, output = kuber("invite", name, *operate)
    assert (code, output.count("\n")) == (0, 2)
    assert f"warning: {name} has joined already" in output
    assert f"kuber hub rekey {name}" in output
    kuber("invitations", "--void", *operate)


@pytest.mark.parametrize("id", ["nothing", "no id", "../entities"])
def test_a_missing_record_is_reported_in_one_sentence(hub, id):
    operate = ["--registry", hub.urls[1], *hub.urls[4:]]
    for command in (["quarantine", id, "--reason", "Because."], ["release", id], ["withdraw", id]):
        code, output = kuber(*command, *operate)
        assert (code, output) == (1, f"error: The registry has no knowledge {id!r}.\n")


@pytest.mark.parametrize("reason", ["", "   ", "two\nlines", "x" * 201])
def test_a_reason_is_one_printable_sentence(hub, reason):
    record = hub.publish()
    code, output = kuber("quarantine", record.id, "--reason", reason, "--registry", hub.urls[1], *hub.urls[4:])
    assert (code, output.count("\n")) == (4, 1)
    assert "The field reason is refused" in output
    assert hub.registry.knowledge(record.id) == record


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("before", [True, False])
def test_check_misses_no_record_that_is_released_or_quarantined_meanwhile(hub, before, turn):
    record = hub.publish()
    turns = []

    class ChangingRegistry:
        """Registry whose operator acts after `turn` queries."""

        def discover(self, query):
            page = hub.registry.discover(query)
            turns.append(query)
            if len(turns) == turn:
                hub.set_quarantine(record.id, not before)
            return page

    hub.set_quarantine(record.id, before)
    found = compare(ChangingRegistry(), hub.vault, now=datetime.now(UTC), settled=timedelta(0))
    assert (found.faults, found.records) == ((), len({pin.holder for pin in hub.vault.pins(limit=1000).items}))
    assert len(turns) > turn
    hub.set_quarantine(record.id, False)


def test_scrub_sets_damaged_blobs_aside_and_check_reports_them(hub):
    sound, rotten = hub.publish(), hub.publish()
    artifact = rotten.artifacts["weights"]
    whole = hub.file(rotten).read_bytes()
    hub.file(rotten).write_bytes(whole[:-1] + b"?")
    code, output = kuber("scrub", *hub.at_vault)
    assert (code, output.splitlines()[0]) == (1, f"{artifact.digest} is damaged; 1 records name it: upload it again.")
    with pytest.raises(KnowledgeNotFoundError):
        hub.vault.get(artifact.digest)
    code, output = kuber("check", *hub.urls)
    assert (code, f"The weights of {rotten.id} are missing" in output) == (1, True)
    hub.vault.put(whole)
    assert kuber("check", *hub.urls)[0] == 0
    assert kuber("scrub", *hub.at_vault)[0] == 0
    assert hub.vault.get(sound.artifacts["weights"].digest)


@pytest.mark.parametrize("copy", [["--copy"], []], ids=["copies", "links"])
def test_backup_and_restore_while_running(hub, tmp_path, samples, copy):
    hub.publish()
    records = hub.registry.discover(Query(limit=1000)).items
    folder, other = tmp_path / "backup", tmp_path / "other"
    stored = {record.artifacts["weights"] for record in records}
    n, blobs, size = len(records), len(stored), sum(artifact.size for artifact in stored)
    assert kuber("backup", folder, *hub.data, *copy) == (
        0,
        f"Backed up {n} records and {blobs} blobs ({size} bytes).\n",
    )
    assert (hub.file(records[0]).stat().st_nlink > 1) == (not copy)
    hub.publish()  # not in the backup
    to = ["--registry-data", other / "registry", "--vault-data", other / "vault"]
    code, output = kuber("restore", folder, *to)
    assert code == 0
    first, age, members, *advice = output.splitlines()
    assert first == f"Restored {n} records and {blobs} blobs ({size} bytes)."
    assert re.match(r"The backup was made \d+ seconds? ago, at 20", age)
    assert re.match(r"\d+ (entity|entities) came back: \w+", members)
    assert [line.rpartition(": ")[2] for line in advice] == [
        "kuber hub revoke --all",
        "kuber hub revoke NAME --block",
    ]
    again = Hub(other, samples)
    with again.stack:
        for record in records:
            assert again.registry.knowledge(record.id) == record
            digest = record.artifacts["weights"].digest
            assert again.vault.get(digest) == hub.vault.get(digest)
        code, output = kuber("check", *again.urls)
        assert (code, output.splitlines()[-1]) == (0, f"{n} records, {blobs} blobs, {n} pins; 0 disagreements.")
        again.publish()
        code, output = kuber("check", *again.urls, "--backup", folder)
        assert (code, f"as whole as {folder}" in output) == (0, True)
        code, output = kuber("backup", tmp_path / "newer", *hub.data)
        code, output = kuber("check", *again.urls, "--backup", tmp_path / "newer")
        assert (code, "has lost" in output, "the backup of 20" in output) == (1, True, True)
        code, output = kuber("restore", folder, *to)
        assert (code, "is not empty; choose a new folder" in output) == (4, True)


def test_restore_ends_tokens_and_invitations_if_it_is_asked_to(hub, tmp_path):
    hub.operator.invite("latecomer")
    folder, other = tmp_path / "backup", tmp_path / "other"
    kuber("backup", folder, *hub.data)
    to = ["--registry-data", other / "registry", "--vault-data", other / "vault"]
    code, output = kuber("restore", folder, *to, "--revoke-tokens", "--void-invitations")
    assert code == 0
    assert re.search(r"The tokens of \d+ (entity|entities) are revoked, and the operator's\.\n", output)
    assert "\n1 invitation can no longer be used.\n" in output
    assert "kuber hub revoke --all" not in output
    again = Hub(other, Samples())
    with again.stack, HttpVault(again.urls[3], credentials=hub.registry.credentials) as vault:
        with pytest.raises(NotAuthorizedError):
            SigningRegistry(again.urls[1], credentials=Credentials(token=hub.registry.credentials.token())).members()
        with pytest.raises(NotAuthorizedError):
            vault.size(hub.vault.put(b"abc").digest)
        states = kuber("invitations", "--registry", again.urls[1], *again.urls[4:])[1]
        assert states.splitlines()[0].split()[1:] == ["expired", "latecomer"]
    kuber("invitations", "--void", "--registry", hub.urls[1], *hub.urls[4:])


def test_rekey_prints_a_code(hub):
    operate = ["--registry", hub.urls[1], *hub.urls[4:]]
    code, output = kuber("rekey", hub.registry.member(hub.entity).name, *operate)
    assert (code, len(output.split())) == (0, 1)
    assert kuber("rekey", "nobody-of-this-name", *operate)[0] == 1
    kuber("invitations", "--void", *operate)


@pytest.mark.parametrize("answers", ["y\ny\n", "n\nn\n"])
def test_restore_asks_on_a_terminal(hub, tmp_path, monkeypatch, answers):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    hub.operator.invite("latecomer")
    kuber("backup", tmp_path / "backup", *hub.data)
    monkeypatch.setattr("sys.stdin", Terminal(answers))
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    restore(tmp_path / "backup", tmp_path / "registry", tmp_path / "vault")
    monkeypatch.undo()
    text = out.getvalue()
    assert re.search(r"\d+ tokens? can be used again, also those revoked since\. Revoke them\?", text)
    assert "can be used again, also those used since. Void them?" in text
    ended = answers.startswith("y")
    assert (bool(re.search(r"The tokens of \d+ \w+ are revoked", text)), "kuber hub revoke --all" in text) == (
        ended,
        not ended,
    )
    kuber("invitations", "--void", "--registry", hub.urls[1], *hub.urls[4:])


def test_all_tokens_are_revoked_and_all_invitations_made_useless_at_a_running_hub(hub):
    operate = ["--registry", hub.urls[1], *hub.urls[4:]]
    hub.operator.invite("another")
    assert kuber("invitations", "--void", *operate)[1].splitlines()[0].split()[1:] == ["void", "another"]
    assert kuber("invitations", *operate)[1].splitlines()[0].split()[1:] == ["expired", "another"]
    code, output = kuber("revoke", "--all", *operate)
    assert (code, "entities are revoked" in output) == (0, True)
    assert kuber("revoke", *operate)[0] == kuber("revoke", "x", "--all", *operate)[0] == 2
    hub.registry.register(hub.registry.member(hub.entity).name)


def test_restore_leaves_out_and_reports_damaged_blobs(hub, tmp_path):
    record = hub.publish()
    folder, other = tmp_path / "backup", tmp_path / "other"
    kuber("backup", folder, *hub.data, "--copy")
    hex = record.artifacts["weights"].digest.hex
    (folder / "blobs" / hex[:2] / hex[2:4] / hex).write_bytes(b"rot")
    code, output = kuber("restore", folder, "--registry-data", other / "r", "--vault-data", other / "v")
    assert (code, output.splitlines()[0]) == (
        1,
        f"sha256:{hex} is missing or damaged, but a record names it: upload it again.",
    )


def test_a_postgresql_database_is_not_copied_by_kuber_backup(hub, tmp_path):
    result = kuber("backup", tmp_path / "backup", "--registry-data", tmp_path, *hub.data[2:])
    assert result[0] == 4
    assert "Back up a PostgreSQL database with pg_dump." in result[1].replace("\n", " ")


def test_an_unfinished_backup_is_not_restored(hub, tmp_path):
    hub.publish()
    kuber("backup", tmp_path / "backup", *hub.data)
    (tmp_path / "backup" / "backup.json").unlink()
    code, output = kuber(
        "restore", tmp_path / "backup", "--registry-data", tmp_path / "r", "--vault-data", tmp_path / "v"
    )
    assert (code, "not a complete backup" in output) == (4, True)


def test_the_folder_of_a_vault_in_a_bucket_is_no_backup(hub, tmp_path):
    (tmp_path / "v").mkdir()
    code, output = kuber(
        "backup", tmp_path / "b", "--registry-data", hub.folder / "registry", "--vault-data", tmp_path / "v"
    )
    assert (code, output.count("\n")) == (4, 1)
    assert "has them in its bucket" in output
    assert not (tmp_path / "b").exists()


def test_a_missing_hub_is_reported_in_one_sentence(tmp_path):
    code, output = kuber("backup", tmp_path / "b", "--registry-data", tmp_path / "r", "--vault-data", tmp_path / "v")
    assert (code, output.count("\n")) == (4, 1)


def test_a_refused_record_leaves_no_pin(hub):
    other = hub.vault.put(hub.samples.weights({"weight": hub.samples.architecture.manifest["weight"]}))
    with pytest.raises(RequestRejectedError, match="other tensors"):
        hub.registry.publish(hub.samples.draft(hub.entity, other), key="refused")
    assert other.digest not in {pin.digest for pin in hub.vault.pins(limit=1000).items}
