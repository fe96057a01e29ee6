"""Four sites whose models are scikit-learn forests learn from each other: a forest is fitted anew, not trained on.

Each site has few labelled digits of its own mixture of classes, and more that nobody labelled. The teachers of a
phase label those; a forest fitted on both replaces the one before, and is kept only if it is good enough on its
own validation data. For comparison, "labels its own" fits once more on labels that the site's own forest gives.
Needs `pip install 'kuber[digits,onnx]' skl2onnx`.
"""

import argparse
import tempfile
from dataclasses import dataclass

import numpy as np
import torch
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import balanced_accuracy_score

import kuber

SITES, LABELLED, UNLABELLED, VALIDATION, OWN_TEST = 4, 40, 120, 60, 100


@dataclass
class Site:
    """Samples of one site, as pairs of features and labels; the labels of `unlabelled` are not used."""

    labelled: tuple
    unlabelled: tuple
    validation: tuple
    own_test: tuple


def make_sites(seed: int):
    """Return the sites, and held-out samples of all classes that no site has."""
    draws = np.random.default_rng(seed)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    pools = [list(draws.permutation(np.flatnonzero(y == label))) for label in range(10)]
    held_out = [pool.pop() for pool in pools for _ in range(30)]
    sites = []
    for _ in range(SITES):
        mixture = draws.dirichlet(np.full(10, 0.5))
        parts = []
        for count in (LABELLED, UNLABELLED, VALIDATION, OWN_TEST):
            rows = []
            while len(rows) < count:
                label = draws.choice(10, p=mixture)
                if not pools[label]:  # this class is used up
                    label = max(range(10), key=lambda other: len(pools[other]))
                rows.append(pools[label].pop())
            parts.append((x[rows], y[rows]))
        sites.append(Site(*parts))
    return sites, (x[held_out], y[held_out])


def fitted(x, y, weights, trees: int, seed: int) -> ExtraTreesClassifier:
    """Return a forest that knows all ten classes: one it has no sample of gets a grey image of almost no weight."""
    grey = np.full((10, x.shape[1]), 0.5, "float32")
    x, y = np.concatenate([x, grey]), np.concatenate([y, np.arange(10)])
    weights = np.concatenate([weights, np.full(10, 1e-6)])
    return ExtraTreesClassifier(trees, random_state=seed).fit(x, y, sample_weight=weights)


def as_model(forest: ExtraTreesClassifier) -> kuber.onnx.OnnxModel:
    """Return the forest as a graph, which any entity can run without scikit-learn."""
    graph = to_onnx(forest, np.zeros((1, 64), "float32"), options={"zipmap": False}).SerializeToString()
    return kuber.onnx.OnnxModel(graph, input_shape=(64,), classes=10)


def run(seed: int, trees: int, rounds: int) -> None:
    sites, held_out = make_sites(seed)
    hub = kuber.memory_hub()
    task = kuber.Task(name="digits", labels=range(10), input_shape=(64,))
    forests = [fitted(*site.labelled, np.ones(LABELLED), trees, seed) for site in sites]
    entities = [
        kuber.Entity(
            f"site {number}",
            model=as_model(forest),
            task=task,
            validation=tuple(map(torch.tensor, site.validation)),
            hub=hub,
            folder=tempfile.mkdtemp(),
        )
        for number, (site, forest) in enumerate(zip(sites, forests, strict=True))
    ]
    for _ in range(rounds + 1):
        for entity, site in zip(entities, sites, strict=True):
            teachers = entity.step()
            if teachers:
                pool = torch.tensor(site.unlabelled[0])
                certainty, labels = teachers(pool).softmax(1).max(1)
                entity.replace(as_model(refitted(site, labels.numpy(), certainty.numpy(), trees, seed)))
    for entity in entities:
        entity.step()

    print(f"seed {seed}:", report("alone", [as_model(forest) for forest in forests], sites, held_out))
    alone = []
    for forest, site in zip(forests, sites, strict=True):
        sure = forest.predict_proba(site.unlabelled[0])
        alone.append(as_model(refitted(site, sure.argmax(1), sure.max(1), trees, seed)))
    print(f"seed {seed}:", report("labels its own", alone, sites, held_out))
    print(f"seed {seed}:", report("with KUber", [entity.model for entity in entities], sites, held_out))
    for entity in entities:
        entity.close()


def refitted(site: Site, labels, certainty, trees: int, seed: int) -> ExtraTreesClassifier:
    """Return a forest fitted on the labelled samples and, by their certainty, on those with guessed labels."""
    x = np.concatenate([site.labelled[0], site.unlabelled[0]])
    y = np.concatenate([site.labelled[1], labels])
    return fitted(x, y, np.concatenate([np.ones(LABELLED), certainty]), trees, seed)


def report(name: str, models, sites, held_out) -> str:
    """Return the mean accuracies over the sites: balanced over all classes, and on each site's own mixture."""
    balanced = [balanced_accuracy_score(held_out[1], predicted(model, held_out[0])) for model in models]
    own = [(predicted(m, s.own_test[0]) == s.own_test[1]).mean() for m, s in zip(models, sites, strict=True)]
    return f"{name:<14} all classes {np.mean(balanced):.1%}  own mixture {np.mean(own):.1%}"


def predicted(model: kuber.onnx.OnnxModel, x):
    return model(torch.tensor(x)).argmax(1).numpy()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    for seed in range(args.seeds):
        run(seed, args.trees, args.rounds)
