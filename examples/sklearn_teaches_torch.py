"""A scikit-learn forest teaches a PyTorch network: the forest travels as an ONNX graph, and its code stays at home.

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


def live(seed: int, trees: int, epochs: int) -> None:
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
    portable = kuber.onnx.OnnxModel(graph, input_shape=(64,), classes=10)
    owner = kuber.Entity("forest", model=portable, task=task, validation=common, hub=hub, folder=folder())
    owner.publish()

    told = []
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
                # Noisy copies of what we have are samples too: what they show, only the teacher can say.
                noisy = few[0][rows] + 0.3 * torch.randn(len(rows), 64)
                loss = nn.functional.cross_entropy(logits, few[1][rows])
                if teachers:
                    loss = loss + kuber.losses.distillation_loss(model(noisy), teachers(noisy))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        student.step(optimizer)
        told.append((model(test[0]).argmax(1) == test[1]).float().mean().item())
        student.close()
    expert = (portable(test[0]).argmax(1) == test[1]).float().mean().item()
    print(f"seed {seed}: forest {expert:.1%}; network alone {told[0]:.1%}, taught by the forest {told[1]:.1%}")


def split(count: int) -> tuple[slice, slice, slice]:
    """The common test set, the student's few samples, and what nobody sees."""
    return slice(0, 200), slice(200, 260), slice(260, count)


def folder() -> Path:
    return Path(tempfile.mkdtemp())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=60)
    asked = parser.parse_args()
    for seed in range(asked.seeds):
        live(seed, asked.trees, asked.epochs)
