"""The benchmark of owners' loops divides its data as it says, resumes, and finds what changed beyond noise."""

import importlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.parametrize(("sites", "classes"), [(2, 10), (5, 10), (5, 2)])
def test_a_site_has_nine_tenths_of_its_home_classes(module, sites, classes):
    owners = module("own_loops_owners")
    y = torch.arange(classes).repeat_interleave(1000)
    x = torch.arange(len(y))
    parts = owners.divided(
        owners.Workload([""] * classes, (1,), (x, y), (x, y), None), sites, np.random.default_rng(0)
    )
    rows = torch.cat([part for site in parts for part in (site.train[0], site.validation[0])])
    assert sorted(rows.tolist()) == x.tolist()
    homes = min(sites, classes)
    for site in parts:
        at_home = sum(count for label, count in enumerate(site.counts) if label % homes == site.number % homes)
        assert at_home / sum(site.counts) == pytest.approx(0.9, abs=0.04)
        assert len(site.train[0]) == pytest.approx(3 * len(site.validation[0]), rel=0.02)


def test_a_workload_is_measured_once(module, tmp_path, capsys, monkeypatch):
    own_loops, tables = module("own_loops"), module("own_loops_tables")
    weights = {"formats": ("weights",)}  # a graph is checked in a process of its own
    monkeypatch.setattr(tables, "PlainLoop", partial(tables.PlainLoop, options=weights))
    arguments = ["--workload", "digits-mlp", "--sites", "2", "--seeds", "0", "--rounds", "2", "--samples", "100"]
    threads = torch.get_num_threads()
    try:
        own_loops.main([*arguments, "--guest", "liar", "--folder", str(tmp_path)])
        printed = capsys.readouterr().out
        monkeypatch.setattr(own_loops, "measure", None)
        own_loops.main([*arguments, "--guest", "liar", "--folder", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out == printed
    assert printed.count("| digits-mlp | 2 |") == 2
    without, with_liar = (
        json.loads((tmp_path / f"digits-mlp-2{guest}-r2-n100-0.json").read_text()) for guest in ("", "-liar")
    )
    assert without["bytes"] > 0
    for entry, other in zip(without["entities"], with_liar["entities"], strict=True):
        assert entry["alone"] == other["alone"]  # a guest joins the hub alone
        assert len(entry["kuber"]["best"]["even"]) == len(without["truth"])


def made_up(answers):
    truth = [0] * 10 + [1] * 10
    alone = {name: {"own": truth, "even": truth} for name in ("last", "best")}
    joined = {name: {"own": answers, "even": answers} for name in ("last", "best")}
    entry = {"counts": [9, 1], "validation": 3, "alone": alone, "kuber": joined}
    head = {"workload": "made up", "sites": 1, "labels": ["a", "b"], "truth": truth, "bytes": 1}
    return head | {"entities": [entry], "seconds_alone": 1, "seconds_kuber": 2}


def test_a_class_that_falls_is_found(module):
    figures = module("own_loops_figures")
    assert figures.mcnemar(6, 0) == pytest.approx(2 / 64)
    assert figures.mcnemar(5, 5) == 1
    fallen = figures.row([made_up([0] * 16 + [1] * 4)], "stacked")
    (change,) = fallen["own"]["classes"]
    assert (change["class"], change["alone"], change["kuber"], change["share"]) == ("b", 1.0, 0.4, 0.1)
    assert fallen["own"]["kuber"] == pytest.approx(0.94)
    assert fallen["even"]["kuber"] == pytest.approx(0.7)
    assert figures.row([made_up([0] * 15 + [1] * 5)], "stacked")["own"]["classes"] == []


def test_a_model_that_the_entity_offers_is_judged_without_a_choice(module):
    result = made_up([0] * 10 + [1] * 10)
    result["entities"][0]["kuber"]["deployed"] = {"own": [0] * 16 + [1] * 4, "even": [1] * 20}
    found = module("own_loops_figures").row([result], "stacked")
    assert found["own"]["kuber"] == pytest.approx(0.94)
    assert found["even"]["kuber"] == pytest.approx(0.5)
    assert found["even"]["alone"] == 1
