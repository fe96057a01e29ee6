"""Entities that do not train, in Flower's simulation. Runs in a venv of its own, without KUber.

Every task receives weights of the given size and returns others of that size, which FedAvg averages.
Prints one JSON line when the first round, in which Ray's workers import torch, is done, and one at the end.
"""

import argparse
import json
import os
import time

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    args = parser.parse_args()
    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        weights = {name: tensor.clone() for name, tensor in message.content["arrays"].to_torch_state_dict().items()}
        next(iter(weights.values())).reshape(-1)[0] = torch.rand(1)[0]
        content = RecordDict({"arrays": ArrayRecord(weights), "metrics": MetricRecord({"num-examples": 1})})
        return Message(content=content, reply_to=message)

    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        initial = ArrayRecord({"weight": torch.zeros(args.bytes // 4)})
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=args.entities)
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=1)
        print(json.dumps({"started": True}), flush=True)
        start = time.perf_counter()
        strategy.start(grid=grid, initial_arrays=initial, num_rounds=args.rounds, timeout=36000)
        seconds = time.perf_counter() - start
        tasks = args.entities * args.rounds
        print(json.dumps({"ms_per_task": 1000 * seconds / tasks, "tasks": tasks}), flush=True)

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=args.entities,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": args.workers},
        },
    )


if __name__ == "__main__":
    main()
