"""FedAvg in pfl's simulation, as in its tutorials. Runs in a venv of its own, without KUber.

Reads the arrays of `simulate_vs_flower.py` and prints one JSON line.
"""

import argparse
import json
import resource
import time

import numpy as np
import torch
import torch.nn.functional as F
from peer_network import Mlp
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel


class PflMlp(Mlp):
    """The network with the loss and metrics that pfl expects."""

    def loss(self, x, y, eval=False):
        self.train(not eval)
        return F.cross_entropy(self(x), y)

    @torch.no_grad()
    def metrics(self, x, y, eval=True):
        right = (self(x).argmax(1) == y).sum().item()
        return {"accuracy": Weighted(right, len(y))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arrays")
    parser.add_argument("--entities", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    held = np.load(args.arrays)
    features, classes = held["x_test"].shape[1], int(held["y_test"].max()) + 1
    parts = [(torch.from_numpy(held[f"x_{n}"]), torch.from_numpy(held[f"y_{n}"])) for n in range(args.entities)]
    test = torch.from_numpy(held["x_test"]), torch.from_numpy(held["y_test"])
    network = PflMlp(features, classes)
    network.load_state_dict(
        {name.removeprefix("w:"): torch.tensor(held[name]) for name in held.files if name.startswith("w:")}
    )

    def dataset(entity: int) -> Dataset:
        x, y = parts[entity]
        order = torch.randperm(len(x))
        return Dataset(raw_data=[x[order], y[order]], user_id=str(entity), train_kwargs={"eval": False})

    def federated() -> FederatedDataset:
        return FederatedDataset(dataset, get_user_sampler("minimize_reuse", list(range(args.entities))))

    def optimizer(parameters, lr):
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=5e-4)

    model = PyTorchModel(network, optimizer, torch.optim.SGD(network.parameters(), lr=1.0))
    backend = SimulatedBackend(federated(), federated(), postprocessors=[WeightByDatapoints()])

    def play(rounds: int) -> None:
        FederatedAveraging().run(
            NNAlgorithmParams(
                central_num_iterations=rounds,
                evaluation_frequency=10**9,
                train_cohort_size=args.entities,
                val_cohort_size=0,
            ),
            backend,
            model,
            NNTrainHyperParams(
                local_num_epochs=args.epochs, local_learning_rate=0.01, local_batch_size=args.batch_size
            ),
            NNEvalHyperParams(local_batch_size=None),
        )

    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    play(1)  # before the clock starts
    network.load_state_dict(before)
    start = time.perf_counter()
    play(args.rounds)
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        accuracy = (network(test[0]).argmax(1) == test[1]).float().mean().item()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "accuracy": accuracy, "rss_mb": peak}))


if __name__ == "__main__":
    main()
