import json
from dataclasses import replace

from kuber.domain.knowledge import TensorSpec
from kuber.wire.record_json import FEW, published_json, record_json
from kuber.wire.registry import DraftBody, KnowledgeBody, PublicationBody
from tests.services.records import ARCHITECTURE
from tests.services.registry.test_record_pages import record_of


def test_a_record_with_many_tensors_is_the_same_json():
    names = ['"manifest":{', "größe", "\\", "a\nb", *map(str, range(FEW))]
    manifest = {name: TensorSpec(dtype="F32", shape=(at, 2)) for at, name in enumerate(names)}
    arguments = {'"manifest":{': '"manifest":{}', "manifest": 3}
    record = record_of(replace(ARCHITECTURE, arguments=arguments, manifest=manifest))
    made = record_json(record)
    assert json.loads(made) == json.loads(KnowledgeBody.of(record).model_dump_json())
    assert made == KnowledgeBody.of(record).model_dump_json().encode()
    assert KnowledgeBody.read(made).value() == record


def test_a_new_record_is_the_same_json_without_another_check_of_its_parts():
    record = replace(record_of(ARCHITECTURE), copy_of="earlier")
    body = DraftBody.of(record.draft)
    sent = PublicationBody.model_validate({**body.model_dump(mode="json"), "blobs": {"sha256:" + "0" * 64: "AAAA"}})
    assert published_json(body, record) == published_json(sent, record) == record_json(record)
