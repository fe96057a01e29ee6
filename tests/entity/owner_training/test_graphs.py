"""The models of the matrix as graphs: each is exported and run."""

import pytest
import torch

from kuber.learning.onnx_export import faithful_graph
from kuber.learning.wrappers import unwrap
from tests.entity.owner_training.owners import CLASSES, TRAITS, Owner, Plain, samples

MODELS = [name for name, trait in TRAITS.items() if trait.net is not Plain or name in ("compiled", "DataParallel")]


@pytest.mark.process
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_each_model_of_the_matrix_is_exported_faithfully(name):
    owner = Owner(TRAITS[name])
    x, y = samples(8, 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=owner.trait.autocast):
        owner.loss(x, y).backward()
    owner.optimizer.step()
    faithful_graph(unwrap(owner.model), x, classes=CLASSES)
