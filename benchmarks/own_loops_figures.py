"""Figures of own_loops.py: own and balanced accuracy alone and with KUber, and what changed beyond noise."""

import json
from collections.abc import Sequence
from math import comb, sqrt
from statistics import fmean, stdev
from typing import Any

import numpy as np

LEVEL = 0.05  # of the test of a class
# Which model an owner uses, the last or the best on the validation data, and how it answers. An answer for an even
# mixture has the own class frequencies taken out of its logits, which suits a model of plain cross-entropy. With
# KUber it is what the entity offers for use, `entity.predictor` of `entity.best`: "stacked" with teachers, or
# "deployed" without; older results have only the latter, or none.
CHOICES = {
    "own": [("last", "own"), ("best", "own")],
    "even": [("last", "own"), ("best", "own"), ("last", "even"), ("best", "even")],
}


class Pair:
    """An entity's correct answers to the test samples: alone, and with KUber."""

    def __init__(self, result: dict[str, Any], number: int) -> None:
        entry = result["entities"][number]
        self.truth = np.array(result["truth"])
        self.classes = len(result["labels"])
        counts = np.array(entry["counts"], float)
        self.weights = {"own": counts / counts.sum(), "even": np.full(self.classes, 1 / self.classes)}
        self.offers = entry["kuber"].keys() - {"last", "best"}
        self._entry = entry

    def correct(self, variant: str, choice: tuple[str, str]) -> np.ndarray:
        """Return which answers are correct."""
        model, answer = choice
        return np.array(self._entry[variant][model][answer]) == self.truth

    def accuracy(self, variant: str, choice: tuple[str, str], mixture: str) -> float:
        """Return the recalls, weighted by the mixture."""
        correct = self.correct(variant, choice)
        recalls = [correct[self.truth == label].mean() for label in range(self.classes)]
        return float(self.weights[mixture] @ recalls)

    def error(self, alone: np.ndarray, joined: np.ndarray, mixture: str) -> float:
        """Return the standard error of the difference in accuracy, of paired answers to the test samples."""
        change = joined.astype(float) - alone
        parts = [change[self.truth == label] for label in range(self.classes)]
        return sqrt(sum(w**2 * part.var() / len(part) for w, part in zip(self.weights[mixture], parts, strict=True)))


def mcnemar(fallen: int, risen: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (1947): as many answers fell as rose, but for chance."""
    total = fallen + risen
    tail = sum(comb(total, k) for k in range(min(fallen, risen) + 1)) / 2**total
    return min(1.0, 2 * tail)


def row(results: Sequence[dict[str, Any]], offer: str) -> dict[str, Any]:
    """Return the figures of one workload and number of sites over its seeds, each variant by its better choice."""
    sites = results[0]["sites"]
    pairs = [[Pair(result, number) for result in results] for number in range(sites)]
    figures: dict[str, Any] = {"workload": results[0]["workload"], "sites": sites, "seeds": len(results)}
    for mixture, choices in CHOICES.items():
        means = {
            variant: {
                c: fmean(p.accuracy(variant, c, mixture) for each in pairs for p in each)
                for c in (choices if variant == "alone" else offered(pairs, offer, mixture) or choices)
            }
            for variant in ("alone", "kuber")
        }
        alone, joined = (max(found, key=lambda choice: found[choice]) for found in means.values())
        figures[mixture] = {
            "choices": {v: {" ".join(c): mean for c, mean in found.items()} for v, found in means.items()},
            "alone": means["alone"][alone],
            "kuber": means["kuber"][joined],
            "entities": [difference(each, alone, joined, mixture) for each in pairs],
            "classes": changed(pairs, results[0]["labels"], alone, joined),
        }
    figures["bytes"] = fmean(result["bytes"] for result in results)
    figures["seconds"] = {v: fmean(result[f"seconds_{v}"] for result in results) for v in ("alone", "kuber")}
    return figures


def offered(pairs: Sequence[Sequence[Pair]], offer: str, mixture: str) -> list[tuple[str, str]]:
    """Return the one choice of entities that offer a model for use: this offer, or the only one of older results."""
    for name in dict.fromkeys((offer, "deployed")):
        if all(name in p.offers for each in pairs for p in each):
            return [(name, mixture)]
    return []


def difference(
    each: Sequence[Pair], alone: tuple[str, str], joined: tuple[str, str], mixture: str
) -> dict[str, float]:
    """Return an entity's mean difference between its answers alone and with KUber, and its standard error."""
    found = [p.accuracy("kuber", joined, mixture) - p.accuracy("alone", alone, mixture) for p in each]
    return summary(found, [p.error(p.correct("alone", alone), p.correct("kuber", joined), mixture) for p in each])


def changed(
    pairs: Sequence[Sequence[Pair]], labels: Sequence[str], alone: tuple[str, str], joined: tuple[str, str]
) -> list[dict[str, Any]]:
    """Return the classes of each entity whose recall changed beyond noise, by the paired answers of all seeds."""
    found = []
    for number, each in enumerate(pairs):
        for label, name in enumerate(labels):
            before = np.concatenate([p.correct("alone", alone)[p.truth == label] for p in each])
            after = np.concatenate([p.correct("kuber", joined)[p.truth == label] for p in each])
            p = mcnemar(int((before & ~after).sum()), int((after & ~before).sum()))
            if p < LEVEL:
                recalls = {"alone": float(before.mean()), "kuber": float(after.mean())}
                share = fmean(pair.weights["own"][label] for pair in each)
                found.append({"entity": number, "class": name, "share": share, "p": p} | recalls)
    return found


def guest_row(results: Sequence[dict[str, Any]], without: Sequence[dict[str, Any]], offer: str) -> dict[str, Any]:
    """Return what a guest does to the own accuracy of the others with KUber, over the seeds."""
    sites, entities, means = results[0]["sites"], [], []
    for number in range(sites):
        pairs = [(Pair(first, number), Pair(second, number)) for first, second in zip(without, results, strict=True)]
        choice = (*offered(pairs, offer, "own"), ("last", "own"))[0]
        before = [first.accuracy("kuber", choice, "own") for first, _ in pairs]
        found = [pair[1].accuracy("kuber", choice, "own") - mean for pair, mean in zip(pairs, before, strict=True)]
        errors = [
            first.error(first.correct("kuber", choice), second.correct("kuber", choice), "own")
            for first, second in pairs
        ]
        entities.append(summary(found, errors))
        means.append(fmean(before))
    figures = {"workload": results[0]["workload"], "sites": sites, "guest": results[0]["guest"]}
    mean = fmean(means)
    joined = mean + fmean(entity["difference"] for entity in entities)
    return figures | {"seeds": len(results), "without": mean, "with": joined, "entities": entities}


def summary(differences: Sequence[float], errors: Sequence[float]) -> dict[str, float]:
    """Return an entity's mean difference, and the larger of its standard errors: of the samples, and of the seeds."""
    sampling = sqrt(sum(error**2 for error in errors)) / len(errors)
    between = stdev(differences) / sqrt(len(differences)) if len(differences) > 1 else 0.0
    return {"difference": fmean(differences), "error": max(sampling, between)}


def print_figures(results: Sequence[dict[str, Any]], *, offer: str, classes: bool, as_json: bool) -> None:
    """Print a row for each workload and number of sites, and one for each guest."""
    groups: dict[tuple[str, int, str | None], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["workload"], result["sites"], result["guest"]), []).append(result)
    rows, guests = [], []
    for (workload, sites, guest), group in groups.items():
        if guest is None:
            rows.append(row(group, offer))
            continue
        known = {result["seed"]: result for result in groups.get((workload, sites, None), [])}
        group = [result for result in group if result["seed"] in known]
        if group:
            guests.append(guest_row(group, [known[result["seed"]] for result in group], offer))
    if as_json:
        print(json.dumps({"workloads": rows, "guests": guests}, indent=1))
        return
    print_workloads(rows)
    if classes:
        print_classes(rows)
    if guests:
        print_guests(guests)


def print_workloads(rows: Sequence[dict[str, Any]]) -> None:
    """Print own and balanced accuracy, alone and with KUber."""
    print("| workload | sites | seeds | own, alone | with KUber | difference | worst entity | classes fallen, risen "
          "| balanced, alone | with KUber | difference | MB each | seconds, alone | with KUber |")  # fmt: skip
    print("| --- " * 14 + "|")
    for figures in rows:
        own, even = figures["own"], figures["even"]
        fallen = sum(entry["kuber"] < entry["alone"] for entry in own["classes"])
        cells = [
            figures["workload"], figures["sites"], figures["seeds"], points(own["alone"]), points(own["kuber"]),
            signed(own), worst(own), f"{fallen}, {len(own['classes']) - fallen}", points(even["alone"]),
            points(even["kuber"]), signed(even), f"{figures['bytes'] / 1e6:.1f}",
            *(f"{value:.1f}" for value in figures["seconds"].values()),
        ]  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |")


def print_classes(rows: Sequence[dict[str, Any]]) -> None:
    """Print the classes whose recall, in answers for the own mixture, changed beyond noise."""
    print("\n| workload | sites | entity | class | share of its samples | recall alone | with KUber | p |")
    print("| --- " * 8 + "|")
    for figures in rows:
        for entry in figures["own"]["classes"]:
            shown = [figures["workload"], figures["sites"], entry["entity"], entry["class"]]
            shown += [points(entry[key]) for key in ("share", "alone", "kuber")] + [f"{entry['p']:.3f}"]
            print("| " + " | ".join(map(str, shown)) + " |")


def print_guests(rows: Sequence[dict[str, Any]]) -> None:
    """Print the own accuracy of the others with KUber, without and with each guest."""
    print("\n| workload | sites | guest | seeds | own, without | with the guest | difference | worst entity |")
    print("| --- " * 8 + "|")
    for figures in rows:
        cells = [figures[key] for key in ("workload", "sites", "guest", "seeds")]
        cells += [points(figures["without"]), points(figures["with"]), signed(figures), worst(figures)]
        print("| " + " | ".join(map(str, cells)) + " |")


def points(value: float) -> str:
    """Return a share in percent."""
    return f"{100 * value:.1f}"


def signed(figures: dict[str, Any]) -> str:
    """Return the mean difference over the entities in points, and its standard error."""
    entities = figures["entities"]
    mean = fmean(entity["difference"] for entity in entities)
    error = sqrt(sum(entity["error"] ** 2 for entity in entities)) / len(entities)
    return f"{100 * mean:+.1f} ± {100 * error:.1f}"


def worst(figures: dict[str, Any]) -> str:
    """Return the difference of the entity that loses most, in points, and its standard error."""
    entity = min(figures["entities"], key=lambda entity: entity["difference"])
    return f"{100 * entity['difference']:+.1f} ± {100 * entity['error']:.1f}"
