"""The same experiment written in the usual way, as the baseline of run_vs_plain.py.

Four processes, float32, torch's default threads, a DataLoader whose data set transforms one sample at a time, a
teacher that is evaluated in every epoch of distillation, models in a shared folder. Nothing here uses KUber: arrays,
partition and the rounds in which an entity distils come from a file, so that both do the same work.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import DataLoader, Dataset

MEAN = np.array([0.49139968, 0.48215841, 0.44653091], dtype=np.float32).reshape(3, 1, 1)
STD = np.array([0.24703223, 0.24348513, 0.26158784], dtype=np.float32).reshape(3, 1, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        previous = 3
        for channels in (32, 64, 128):
            layers += [nn.Conv2d(previous, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
            previous = channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(128, 10)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def random_shift(image, pixels=2):
    padded = ImageOps.expand(image, border=pixels, fill=0)
    left, top = random.randint(0, 2 * pixels), random.randint(0, 2 * pixels)
    return padded.crop((left, top, left + image.width, top + image.height))


def random_flip(image):
    return ImageOps.mirror(image) if random.random() < 0.5 else image


def to_tensor(image):
    array = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255
    return torch.from_numpy((array - MEAN) / STD)


class Images(Dataset):
    def __init__(self, x, y, augment):
        self.images = [Image.fromarray(image.transpose(1, 2, 0)) for image in x]
        self.labels = [int(label) for label in y]
        self.augment = augment

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index]
        if self.augment:
            image = random_flip(random_shift(image))
        return to_tensor(image), self.labels[index]


def accuracy_of(model, loader):
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for x, y in loader:
            correct += (model(x).argmax(1) == y).sum().item()
            total += len(y)
    return correct / total


def train(model, loader, epochs, learning_rate):
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4)
    samples = 0
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            samples += len(y)
    return samples


def distil(model, teacher, loader, epochs, learning_rate, temperature, alpha):
    teacher.eval()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4)
    samples = 0
    for _ in range(epochs):
        for x, y in loader:
            with torch.no_grad():
                target = F.softmax(teacher(x) / temperature, dim=1)
            optimizer.zero_grad()
            logits = model(x)
            soft = F.kl_div(F.log_softmax(logits / temperature, dim=1), target, reduction="batchmean")
            loss = alpha * F.cross_entropy(logits, y) + (1 - alpha) * temperature**2 * soft
            loss.backward()
            optimizer.step()
            samples += len(y)
    return samples


def best_of_others(folder, entity):
    found = []
    for path in folder.glob("*.json"):
        if path.stem.split("-")[0] != str(entity):
            found.append((json.loads(path.read_text())["accuracy"], path.with_suffix(".pt")))
    return max(found)[1] if found else None


def entity_main(entity, plan, arrays, folder):
    torch.manual_seed(plan["seed"])
    model = Net()
    torch.manual_seed(1000 * plan["seed"] + entity)
    random.seed(1000 * plan["seed"] + entity)
    data = np.load(arrays)
    part = np.array(plan["parts"][entity])
    batch = plan["batch_size"]
    augmented = DataLoader(Images(data["x"][part], data["y"][part], True), batch_size=batch, shuffle=True)
    plain = DataLoader(Images(data["x"][part], data["y"][part], False), batch_size=batch, shuffle=True)
    common = DataLoader(Images(data["common_x"], data["common_y"], False), batch_size=batch)
    held_out = DataLoader(Images(data["held_out_x"], data["held_out_y"], False), batch_size=batch)
    trained = distilled = 0
    for round in range(1, plan["rounds"] + 1):
        trained += train(model, augmented, plan["local_epochs"], plan["learning_rate"])
        accuracy = accuracy_of(model, common)
        if round in plan["shares"][entity]:
            path = folder / f"{entity}-{round}"
            torch.save(model.state_dict(), path.with_suffix(".pt"))
            path.with_suffix(".json").write_text(json.dumps({"accuracy": accuracy}))
        if round in plan["distils"][entity]:
            while (best := best_of_others(folder, entity)) is None:
                time.sleep(0.1)
            teacher = Net()
            teacher.load_state_dict(torch.load(best, weights_only=True))
            settings = (plan["kd_epochs"], plan["learning_rate"], plan["kd_temperature"], plan["kd_alpha"])
            distilled += distil(model, teacher, plain, *settings)
            accuracy_of(model, common)
    result = {"accuracy": accuracy_of(model, held_out), "trained": trained, "distilled": distilled}
    (folder / f"result-{entity}.txt").write_text(json.dumps(result))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("plan", type=Path)
    parser.add_argument("arrays", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    plan = json.loads(args.plan.read_text())
    args.folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    context = mp.get_context("spawn")
    processes = [
        context.Process(target=entity_main, args=(entity, plan, args.arrays, args.folder))
        for entity in range(len(plan["parts"]))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    results = [json.loads((args.folder / f"result-{e}.txt").read_text()) for e in range(len(processes))]
    print(json.dumps({"wall_seconds": time.perf_counter() - start, "entities": results}))


if __name__ == "__main__":
    main()
