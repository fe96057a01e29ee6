"""FedAvg in Flower's simulation, as in its documentation. Runs in a venv of its own, without KUber.

Reads the arrays of `simulate_vs_flower.py` and prints one JSON line. `--no-op` returns the weights unchanged.
"""

import argparse
import json
import os
import resource
import time

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from peer_network import Mlp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arrays")
    parser.add_argument("--entities", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--no-op", action="store_true")
    args = parser.parse_args()
    path = os.path.abspath(args.arrays)
    held = np.load(path)
    features, classes = held["x_test"].shape[1], int(held["y_test"].max()) + 1
    initial = {name.removeprefix("w:"): torch.tensor(held[name]) for name in held.files if name.startswith("w:")}

    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        arrays = message.content["arrays"]
        count = 1
        if not args.no_op:
            with np.load(path) as mine:
                part = int(context.node_config["partition-id"])
                x, y = torch.from_numpy(mine[f"x_{part}"]), torch.from_numpy(mine[f"y_{part}"])
            model = Mlp(features, classes)
            model.load_state_dict(arrays.to_torch_state_dict())
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
            for _ in range(args.epochs):
                for rows in torch.randperm(len(x)).split(args.batch_size):
                    optimizer.zero_grad()
                    F.cross_entropy(model(x[rows]), y[rows]).backward()
                    optimizer.step()
            arrays, count = ArrayRecord(model.state_dict()), len(x)
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": count})})
        return Message(content=content, reply_to=message)

    server = ServerApp()
    result = {}

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=args.entities)
        # One round before the clock starts, in which Ray's workers import torch.
        strategy.start(grid=grid, initial_arrays=ArrayRecord(initial), num_rounds=1)
        start = time.perf_counter()
        result = strategy.start(grid=grid, initial_arrays=ArrayRecord(initial), num_rounds=args.rounds)
        result["seconds"] = time.perf_counter() - start
        model = Mlp(features, classes)
        model.load_state_dict(result.arrays.to_torch_state_dict())
        with torch.inference_mode():
            right = model(torch.from_numpy(held["x_test"])).argmax(1) == torch.from_numpy(held["y_test"])
        result["accuracy"] = right.float().mean().item()

    begin = time.perf_counter()
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=args.entities,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 2}},
    )
    result["total_seconds"] = time.perf_counter() - begin
    result["tasks"] = args.entities * args.rounds
    result["server_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
