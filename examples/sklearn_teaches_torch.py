"""A scikit-learn forest teaches a PyTorch network: the forest is published as an ONNX graph, without its code.

The forest's owner has many labelled digits, the student few. Needs `pip install 'kuber[digits,onnx]' skl2onnx`.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split
from torch import nn

import kuber


def run(seed: int, trees: int, epochs: int) -> None:
    torch.manual_seed(seed)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    x_owner, x_rest, y_owner, y_rest = train_test_split(x, y, test_size=0.5, random_state=seed, stratify=y)
    common, few, test = [(torch.tensor(x_rest[rows]), torch.tensor(y_rest[rows])) for rows in split(len(y_rest))]
    task = kuber.Task(
        name="digits", labels=[str(n) for n in range(10)], input_shape=(64,), test_set=kuber.test_set_digest(common)
    )
    hub = kuber.memory_hub()

    forest = ExtraTreesClassifier(trees, random_state=seed).fit(x_owner, y_owner)
    graph = to_onnx(forest, x[:1], options={"zipmap": False}).SerializeToString()
    teacher = kuber.onnx.OnnxModel(graph, input_shape=(64,), classes=10)
    owner = kuber.Entity("forest", model=teacher, task=task, validation=common, hub=hub, folder=folder())
    owner.publish()

    accuracies = []
    for strategy in ("local", "exchange"):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        student = kuber.Entity(
            strategy, model=model, task=task, validation=common, hub=hub, strategy=strategy, folder=folder()
        )
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        teachers = student.step(optimizer)
        for _ in range(epochs):
            for rows in torch.randperm(len(few[1])).split(20):
                logits = model(few[0][rows])
                # Noisy copies are further, unlabelled samples: only the teacher has an answer for them.
                noisy = few[0][rows] + 0.3 * torch.randn(len(rows), 64)
                loss = nn.functional.cross_entropy(logits, few[1][rows])
                if teachers:
                    loss = loss + kuber.losses.distillation_loss(model(noisy), teachers(noisy))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        student.step(optimizer)
        accuracies.append((model(test[0]).argmax(1) == test[1]).float().mean().item())
        student.close()
    expert = (teacher(test[0]).argmax(1) == test[1]).float().mean().item()
    alone, taught = accuracies
    print(f"seed {seed}: forest {expert:.1%}; network alone {alone:.1%}, taught by the forest {taught:.1%}")


def split(count: int) -> tuple[slice, slice, slice]:
    """Return the rows of the common test set, of the student's few samples, and of the held-out test set."""
    return slice(0, 200), slice(200, 260), slice(260, count)


def folder() -> Path:
    return Path(tempfile.mkdtemp())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()
    for seed in range(args.seeds):
        run(seed, args.trees, args.epochs)
