import json
from dataclasses import replace

from kuber.domain.knowledge import TensorSpec
from kuber.wire.record_json import FEW, record_json
from kuber.wire.registry import KnowledgeBody
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
