import pytest
import torch
from torch import nn

from kuber.learning.architectures import make_network
from kuber.learning.personal_head import PENALTY, features, final_layer, personal_head
from kuber.learning.runtime import Runtime

RUNTIME = Runtime(device="cpu", precision="float32", threads=1, channels_last=False)


@pytest.mark.parametrize("name", ["mlp", "cnn", "lenet", "resnet20"])
def test_the_final_layer_of_every_architecture_makes_its_logits_of_its_features(name):
    shape = (3,) if name == "mlp" else (3, 32, 32)
    network = make_network(name, {"input_shape": shape, "classes": 4}).eval()
    x, y = torch.randn(5, *shape), torch.arange(5) % 4
    final = final_layer(network, x)
    given, labels = features(network, final, [(x[:3], y[:3]), (x[3:], y[3:])], runtime=RUNTIME)
    torch.testing.assert_close(final.layer(given), network(x))
    assert torch.equal(labels, y)
    assert final.layer is dict(network.named_modules())[final.name]


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x) * 2


@pytest.mark.parametrize(
    "network", [Scaled(), nn.Linear(3, 2, bias=False), nn.Sequential(nn.Linear(3, 2), nn.ReLU())]
)
def test_a_network_whose_logits_no_linear_layer_makes_has_no_final_layer(network):
    assert final_layer(network, torch.randn(1, 3)) is None


def test_training_is_undisturbed_by_the_search_for_the_final_layer():
    network = make_network("cnn", {"input_shape": (3, 32, 32), "classes": 4}).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    final_layer(network, torch.randn(2, 3, 32, 32))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_head_is_where_the_gradient_of_loss_and_penalty_vanishes():
    torch.manual_seed(0)
    given, labels = torch.randn(200, 4), torch.randint(3, (200,))
    weight, bias = torch.zeros(3, 4), torch.tensor([0.5, 0.0, -0.5])
    found = personal_head(given, labels, weight, bias)
    head = [part.double().requires_grad_() for part in found]
    loss = nn.functional.cross_entropy(given.double() @ head[0].T + head[1], labels)
    loss = loss + PENALTY * (((head[0] - weight) ** 2).sum() + ((head[1] - bias) ** 2).sum())
    loss.backward()
    assert max(float(part.grad.abs().max()) for part in head) < 1e-4
    assert found[0].dtype == torch.float32


def test_the_logits_of_a_head_carry_the_prior_of_its_samples():
    torch.manual_seed(0)
    labels = torch.tensor([0] * 90 + [1] * 10)
    bias = personal_head(torch.randn(100, 2), labels, torch.zeros(2, 2), torch.zeros(2))[1]
    assert (bias[0] - bias[1]).item() == pytest.approx(torch.tensor(9.0).log().item(), abs=0.2)
