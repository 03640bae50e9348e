"""The paper's claims: their configs, the verdicts on numbers made for them, and effects that were planted."""
from __future__ import annotations

import functools
import json
import math
import os
import random
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Callable

import h5py
import numpy as np
import pytest
from matplotlib.figure import Figure

from sgdmap_analysis import ArgumentError, open_sweep, style

ROOT = Path(__file__).resolve().parent.parent
PAPER = ROOT / "jobs" / "paper"
sys.path.insert(0, str(PAPER))

import claims  # noqa: E402
from claims import common  # noqa: E402
from claims.common import CONFIRMED, CONTRADICTED, PART, UNDECIDED  # noqa: E402

PROGRAM = os.environ.get("SGDMAP", str(ROOT / "build" / "src" / "sgdmap"))
needs_program = pytest.mark.skipif(not os.access(PROGRAM, os.X_OK), reason="SGDMAP names no program")
REPLICATES = 6


def sgdmap(*arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120)


def full(name: str) -> list[str]:
    """The overrides of a config's larger version."""
    lines = [line.removeprefix("# --full: ") for line in (PAPER / f"{name}.yaml").read_text().splitlines() if line.startswith("# --full: ")]
    return [part for line in lines for part in ("--set", line)]


# -- Configs -----------------------------------------------------------------------------------------------------------


def test_every_claim_has_a_config_and_the_reverse():
    assert sorted(claims.NAMES) == sorted(path.stem for path in PAPER.glob("*.yaml"))


@pytest.mark.parametrize("name", claims.NAMES)
def test_a_config_says_beforehand_what_would_decide(name):
    lines = (PAPER / f"{name}.yaml").read_text().splitlines()
    text = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    assert lines[0].startswith(f"# Claim {claims.NAMES.index(name) + 1},")
    assert "What would confirm" in text and "What would contradict" in text and full(name)
    module = claims.load(name)
    assert module.NAME == name and module.TITLE and module.CLAIM and module.PANELS
    for verdict in ("Confirmed", "In part", "Contradicted", "ot decided"):
        assert verdict in module.RULE


@needs_program
@pytest.mark.parametrize("name", claims.NAMES)
def test_the_program_accepts_a_config(name):
    for overrides in ([], full(name)):
        done = sgdmap("plan", PAPER / f"{name}.yaml", "--json", *overrides)
        assert done.returncode == 0, done.stderr
        runs = json.loads(done.stdout)["runs"]
        if not overrides:
            assert f"\n# {runs:,} runs; " in (PAPER / f"{name}.yaml").read_text()


# -- Verdicts ----------------------------------------------------------------------------------------------------------


def size(low: float, high: float) -> dict[str, float]:
    return common.estimate((low + high) / 2, low, high)


def link(identity=(6, 6), none=(0, 6), permuted=0, fall=100.0, difference=(0.4, 1.0)):
    return {"main": {"dimension": 280, "difference": size(*difference), "identity": {"converged": common.share(*identity)},
                     "none": {"converged": common.share(*none), "permuted": common.share(permuted, 6), "loss_fall": size(fall, fall)}}}


def phases(phase2=(24, 24), falls=(24, 24), exponent=(-0.1, 0.1), wrong=6):
    return {"rows": [{"wrong": common.share(wrong, 6)}], "by_dimension": [{"dimension": 10, "least": 0.1}], "phase2": common.share(*phase2),
            "potential_falls": common.share(*falls), "exponent": size(*exponent)}


def zero(*against):
    return {"against": [{"init_scale": 0.3, "difference": size(*difference), "steps": size(*steps)} for difference, steps in against]}


def rates(best=1.0, theory=1.0, high=1.0):
    return {"best": {"power_better": best}, "theory": {"power_better": theory}, "accuracy": {"exponent": size(0.1, high), "logarithm_better": 1.0}}


def bounds(gamma=(0.6, 0.3), teacher=(-0.1, 0.1), start=(-0.1, 0.1)):
    return {"rows": [{"dimension": 10 * (i + 1), "gamma": value, "runs": 1} for i, value in enumerate(gamma)],
            "exponents": {"teacher": size(*teacher), "start": size(*start)}}


def inputs(sphere=(0.95, 1.05), student=(0.95, 1.05), share=(-0.05, 0.05)):
    return {"rows": [{"input": name, "ratio": size(*ratio), "share": {"difference": 0.0, "low": share[0], "high": share[1]}}
                     for name, ratio in (("gaussian", (1, 1)), ("sphere", sphere), ("student_t", student))]}


def gradient(ratio=(3, 5), growth=(0.4, 0.8), norms=(-0.05, 0.05)):
    return {"boundaries": {"step_size": [{"dimension": 64, "ratio": size(*ratio)}]}, "growth": size(*growth),
            "norms": {"difference": sum(norms) / 2, "low": norms[0], "high": norms[1]}}


def data(steps=((0.9, 1.1), (0.9, 1.2)), difference=(-0.09, 0.01), needed=(5e4, 9e4), pairs=18):
    return {"size": 100_000, "rows": [{"dimension": 10 * (i + 1), "steps": size(*part)} for i, part in enumerate(steps)],
            "overall": {"pairs": pairs, "difference": size(*difference)}, "needed": {"drawn_out": size(*needed)}}


def noise(exponent=(0.98, 1.02), within=(24, 24), cosine=(0.05, 0.1)):
    return {"exponent": size(*exponent), "within": common.share(*within), "decaying": {"cosine": {"best": size(*cosine)}}}


UNKNOWN = (math.nan, math.nan)
WELL, UNSURE, WORSE = ((-0.05, 0.05), (0.9, 1.1)), ((-0.2, 0.05), (0.9, 1.4)), ((-0.4, -0.2), (1.3, 1.6))
JUDGED: list[tuple[str, dict[str, Any], str]] = [
    ("link", link(), CONFIRMED),
    ("link", link(fall=3), PART),
    ("link", link(permuted=4), PART),
    ("link", link(none=(3, 6)), PART),
    ("link", link(difference=(-0.5, 0)), CONTRADICTED),
    ("link", link(identity=(0, 6)), CONTRADICTED),
    ("link", link(difference=(-0.1, 0.5)), UNDECIDED),
    ("link", link(identity=(0, 0)), UNDECIDED),
    ("phases", phases(), CONFIRMED),
    ("phases", phases(exponent=(-0.3, -0.1)), PART),
    ("phases", phases(wrong=2), PART),
    ("phases", phases(phase2=(3, 24)), CONTRADICTED),
    ("phases", phases(falls=(3, 24)), CONTRADICTED),
    ("phases", phases(phase2=(0, 0)), UNDECIDED),
    ("phases", phases(exponent=UNKNOWN), UNDECIDED),
    ("zero", zero(WELL, WELL), CONFIRMED),
    ("zero", zero(WELL, WORSE), PART),
    ("zero", zero(WORSE, WORSE), CONTRADICTED),
    ("zero", zero(UNSURE, WORSE), UNDECIDED),
    ("rates", rates(), CONFIRMED),
    ("rates", rates(theory=0.5), PART),
    ("rates", rates(0.01, 0.02), CONTRADICTED),
    ("rates", rates(0.6, 0.5), UNDECIDED),
    ("rates", rates(high=math.inf), UNDECIDED),
    ("bounds", bounds(), CONFIRMED),
    ("bounds", bounds(teacher=(-0.3, -0.1)), PART),
    ("bounds", bounds(gamma=(0.6, 0)), CONTRADICTED),
    ("bounds", bounds(start=UNKNOWN), UNDECIDED),
    ("inputs", inputs(), CONFIRMED),
    ("inputs", inputs(student=(0.3, 0.5)), PART),
    ("inputs", inputs((0.3, 0.5), (1.5, 2)), CONTRADICTED),
    ("inputs", inputs((0.7, 1.1), (0.7, 1.1)), UNDECIDED),
    ("gradient", gradient(), CONFIRMED),
    ("gradient", gradient(norms=(0.2, 0.3)), PART),
    ("gradient", gradient(ratio=(1, 1.5)), PART),
    ("gradient", gradient(growth=(-0.2, 0), norms=(-0.3, -0.2)), CONTRADICTED),
    ("gradient", gradient(ratio=(1.5, 3), norms=(-0.3, -0.2)), UNDECIDED),
    ("gradient", gradient(ratio=UNKNOWN, norms=UNKNOWN), UNDECIDED),
    ("data", data(), CONFIRMED),
    ("data", data(needed=(5e4, 2e5)), PART),
    ("data", data(needed=UNKNOWN), PART),
    ("data", data(steps=((0.9, 1.1), (1.4, 1.6))), PART),
    ("data", data(steps=((1.3, 1.5), (1.4, 1.6))), CONTRADICTED),
    ("data", data(difference=(-0.4, -0.2)), CONTRADICTED),
    ("data", data(steps=((0.9, 1.5), (1.4, 1.6))), UNDECIDED),
    ("data", data(pairs=0), UNDECIDED),
    ("noise", noise(), CONFIRMED),
    ("noise", noise(within=(12, 24)), PART),
    ("noise", noise(exponent=(0.4, 0.6)), PART),
    ("noise", noise(exponent=(0.4, 0.6), within=(2, 24)), CONTRADICTED),
    ("noise", noise(exponent=(0.8, 1.2), within=(12, 24)), UNDECIDED),
    ("noise", noise(exponent=UNKNOWN, within=(0, 0)), UNDECIDED),
]


@pytest.mark.parametrize("name, numbers, verdict", JUDGED, ids=[f"{name}-{verdict}-{i}" for i, (name, _, verdict) in enumerate(JUDGED)])
def test_numbers_have_their_verdict(name, numbers, verdict):
    found, reason = claims.load(name).judge(numbers)
    assert found == verdict and reason and "nan" not in reason


def test_every_verdict_of_every_claim_is_reached():
    assert {(name, verdict) for name, _, verdict in JUDGED} == {(name, verdict) for name in claims.NAMES for verdict in (CONFIRMED, PART, CONTRADICTED, UNDECIDED)}


# -- Planted effects ---------------------------------------------------------------------------------------------------


def scatter(setting: dict[str, Any], width: float, *names: str) -> float:
    """A factor about 1 that a (dimension, replicate) has, and what else is named; the same at every call."""
    return math.exp(width * normal(setting["dimension"], setting["replicate"], *(str(setting[name]) for name in names)))


@functools.cache
def normal(*key: Any) -> float:
    return random.Random(repr(key)).gauss(0, 1)


def examined(module: Any, sweep: Any) -> dict[str, Any]:
    """The numbers; and all that is said of them can be said."""
    numbers = module.measure(sweep)
    json.dumps(common.plain(numbers), allow_nan=False)
    heading, rows = module.details(numbers)
    assert rows and all(len(row) == len(heading) and all(isinstance(cell, str) for cell in row) for row in rows)
    assert all(effect.size() and effect.interval() for effect in module.effects(numbers))
    assert "{" not in module.caption(numbers)
    return numbers


def holds(part: dict[str, float], truth: float, width: float = math.inf) -> bool:
    return part["low"] <= truth <= part["high"] and part["high"] - part["low"] < width


def test_the_noises_part_of_the_step_size_is_found(sweep_file):
    def model(setting):
        limit = 4 / setting["dimension"] if setting["gradient"] == "population" else 8 / setting["dimension"] ** 1.5
        if setting["step_size"] > limit * scatter(setting, 0.1, "gradient"):
            return "diverged", 10, 1e9
        near = setting["teacher_norm"] < 1.5 * scatter(setting, 0.2) and setting["init_scale"] < 1.5 * scatter(setting, 0.2)
        return ("converged", 100, 1e-3) if near else ("stalled", 1000, 0.5)

    axes = {"dimension": [8, 16, 32], "batch_size": [50], "gradient": ["minibatch", "population"], "replicate": range(REPLICATES),
            "teacher_norm": [0.6, 2.4], "step_size": np.geomspace(1e-2, 0.7, 13), "init_scale": [0, 2]}
    module = claims.load("gradient")
    numbers = examined(module, open_sweep(sweep_file(axes, model)))
    assert holds(numbers["laws"]["minibatch"], -1.5, 0.8) and holds(numbers["laws"]["population"], -1, 0.8) and holds(numbers["growth"], 0.5, 1)
    assert holds(numbers["boundaries"]["step_size"][-1]["ratio"], 8**0.5, 3)
    assert numbers["norms"]["difference"] == 0 and module.judge(numbers)[0] == PART  # 18 clusters that all agree leave more than 0.1 open
    for i in range(3):
        assert holds(numbers["boundaries"]["teacher_norm"][i]["ratio"], 1)


def test_the_samples_that_are_needed_are_found(sweep_file):
    def model(setting):
        needed = 4 * setting["dimension"] ** 2 * scatter(setting, 0.2)
        if setting["data"] == 0:
            return "converged", 1000, 1e-3
        if setting["data"] < needed:
            return "stalled", 100_000, 0.3
        return "converged", int(1000 * (1.1 + 2 * needed / setting["data"])), 1e-3

    axes = {"dimension": [10, 20, 40], "data": [0, *(100 * 2**i for i in range(10)), 100_000], "replicate": range(9), "step_size": [2e-3],
            "init_scale": [0.3], "batch_size": [50]}
    sweep = open_sweep(sweep_file(axes, model, steps=(0, 100, 100_000)))
    sweep["test_loss"] = sweep.loss
    module = claims.load("data")
    numbers = examined(module, sweep)
    assert holds(numbers["needed"]["exponent"], 2, 0.9) and holds(numbers["needed"]["drawn_out"], 4 * 280**2)
    assert numbers["overall"]["difference"]["value"] == 0 and numbers["overall"]["clusters"] == 27
    assert [row["steps"]["value"] for row in numbers["rows"]] == pytest.approx([1.108, 1.13, 1.228], abs=0.02)
    assert numbers["needed_quarter"]["by_dimension"][0] == numbers["needed"]["by_dimension"][0]  # all end within a quarter
    assert module.judge(numbers)[0] == PART


def test_a_quarter_of_the_budget_is_counted_apart(sweep_file):
    def model(setting):
        enough = setting["data"] == 0 or setting["data"] >= 4 * setting["dimension"] ** 2
        soon = setting["data"] == 0 or setting["data"] >= 16 * setting["dimension"] ** 2
        return ("converged", 100 if soon else 900, 1e-3) if enough else ("stalled", 1000, 0.3)

    axes = {"dimension": [10, 20, 40], "data": [0, *(100 * 2**i for i in range(10))], "replicate": range(2), "step_size": [2e-3], "init_scale": [0.3]}
    sweep = open_sweep(sweep_file(axes, model))
    sweep["test_loss"] = sweep.loss
    numbers = claims.load("data").measure(sweep)
    for i, d in enumerate((10, 20, 40)):
        # Between the last size that does not do and the first that does: a factor 2 apart.
        for name, factor in (("needed", 4), ("needed_quarter", 16)):
            assert numbers[name]["by_dimension"][i]["value"] == pytest.approx(factor * d**2 / math.sqrt(2), rel=0.05)


def test_the_noises_power_laws_are_found(sweep_file):
    def model(setting):
        if setting["noise"] == 0:
            return "converged", 500, 1e-6
        floor = setting["noise"] * math.sqrt(2 * setting["step_size"] * setting["dimension"] / 150)
        decay = {"constant": 1, "inverse_time": 3, "cosine": 0.1}[setting["schedule"]]
        return "unfinished", 1000, floor * decay * scatter(setting, 0.05) * scatter(setting, 0.05, "noise", "step_size", "schedule")

    axes = {"dimension": [10, 20, 40], "batch_size": [50], "noise": [0, 0.01, 0.1, 1], "schedule": ["constant", "cosine", "inverse_time"],
            "replicate": range(REPLICATES), "step_size": [1e-3, 4e-3], "init_scale": [0.3]}
    module = claims.load("noise")
    numbers = examined(module, open_sweep(sweep_file(axes, model)))
    assert holds(numbers["exponent"], 1, 0.1) and holds(numbers["exponent_step_size"], 0.5, 0.2) and holds(numbers["exponent_dimension"], 0.5, 0.3)
    assert holds(numbers["over_prediction"], 1, 0.2) and holds(numbers["decaying"]["cosine"]["best"], 0.1, 0.02)
    assert holds(numbers["decaying"]["inverse_time"]["best"], 3, 0.5)
    assert holds(numbers["settled"]["exponent"], 1, 0.1) and holds(numbers["settled"]["exponent_step_size"], 0.5, 0.2)
    assert numbers["settled"]["runs"] == 18 * 6  # all: without noise the error is 10^-6
    assert (numbers["within"]["k"], numbers["within"]["n"]) == (18, 18) and numbers["without_noise"]["share"] == 1
    verdict, reason = module.judge(numbers)
    assert verdict == CONFIRMED and "cosine steps they end" in reason and "inverse time steps they end farther away" in reason


def test_runs_that_are_not_at_their_floor_are_told_apart():
    noise, etas = np.array([0.01, 0.1, 1]), np.array([1e-3, 2e-3])
    floor = np.log(noise[None, :]) + 0.5 * np.log(etas[:, None])
    late = np.maximum(floor, floor[0, 1])  # the smallest noise at the smaller step size does not get there
    late[1, 0] = floor[1, 0]
    without = np.array([floor[0, 1], -20.0]) - math.log(2)
    in_c, in_step, runs = claims.load("noise")._settled_exponents(noise, etas, np.stack([late] * 4), np.stack([without] * 4))
    assert in_c["value"] == pytest.approx(1) and in_step["value"] == pytest.approx(0.5) and runs == 4 * 4


def test_runs_that_diverge_of_noise_are_not_near(sweep_file):
    def model(setting):
        if setting["noise"] > 0.5:
            return "diverged", 7, 1e9
        return "unfinished", 1000, 0.05 * setting["noise"]

    axes = {"noise": [0.01, 0.1, 1], "schedule": ["constant", "cosine"], "replicate": range(REPLICATES), "step_size": [1e-3, 4e-3], "init_scale": [0.3]}
    numbers = claims.load("noise").measure(open_sweep(sweep_file(axes, model)))
    assert numbers["within"]["k"] == 0 and numbers["within"]["n"] == REPLICATES and numbers["diverged"] == 2 * REPLICATES
    assert claims.load("noise").judge(numbers)[0] == UNDECIDED


def test_the_links_effect_is_found(sweep_file):
    def model(setting):
        return ("converged", 500, 1e-3) if setting["link"] == "identity" else ("stalled", 1000, 0.3)

    def rows(setting):
        return {"loss": np.geomspace(90, 0.09, 5), "error": np.geomspace(0.3, 1e-3, 5)}

    axes = {"dimension": [10, 280], "link": ["identity", "none"], "replicate": range(REPLICATES), "step_size": [1e-3], "init_scale": [0.3]}
    sweep = with_tolerance(open_sweep(sweep_file(axes, model, rows=rows)), "1.0e-2")
    module = claims.load("link")
    numbers = examined(module, sweep)
    main = numbers["main"]
    assert main["dimension"] == 280 and main["difference"]["value"] == 1 and main["p"] == pytest.approx(2 / 2**6)
    assert main["none"]["loss_fall"]["value"] == pytest.approx(1000) and main["none"]["permuted"]["k"] == 0
    assert module.judge(numbers)[0] == CONFIRMED


def with_tolerance(sweep: Any, text: str) -> Any:
    sweep.attrs["config"] = f"training:\n  tolerance: {text}\n"
    return sweep


def test_what_zero_costs_is_found(sweep_file):
    def model(setting):
        return "converged", int(10_000 * scatter(setting, 0.3) * (1.5 if setting["init_scale"] == 0 else 1)), 1e-3

    axes = {"dimension": [10, 30, 90], "replicate": range(12), "step_size": [1e-3], "init_scale": [0, 0.3, 1]}
    module = claims.load("zero")
    numbers = examined(module, open_sweep(sweep_file(axes, model)))
    assert all(one["steps"]["value"] == pytest.approx(1.5, rel=1e-3) and one["difference"]["value"] == 0 for one in numbers["against"])
    assert module.judge(numbers)[0] == CONTRADICTED


def test_the_steps_power_of_d_is_found(sweep_file):
    def time(setting):
        """Steps in which the error falls by a factor of e: the best step size is 1/d."""
        d, eta = setting["dimension"], setting["step_size"]
        return 20 * d**1.5 * scatter(setting, 0.1) * max(eta * d, 1 / (eta * d))

    steps = np.unique(np.round(np.geomspace(1, 1e6, 150)).astype(int))

    def rows(setting):
        return {"error": np.exp(-steps / time(setting))}

    axes = {"dimension": [8, 16, 32, 64], "replicate": range(REPLICATES), "step_size": 10 / 128**2 * 2.0 ** np.arange(0, 13), "init_scale": [0.3]}
    sweep = with_tolerance(open_sweep(sweep_file(axes, lambda setting: ("converged", int(math.log(1e4) * time(setting)), 1e-4), rows=rows, steps=steps)), "1.0e-4")
    module = claims.load("rates")
    numbers = examined(module, sweep)
    assert holds(numbers["best"]["exponent"], 1.5, 0.5) and numbers["accuracy"]["logarithm_better"] == 1
    assert module.judge(numbers)[0] in (CONFIRMED, PART)


def test_the_bounds_are_found(sweep_file):
    def model(setting):
        near = setting["teacher_norm"] < 12 / setting["dimension"] ** 0.5 * scatter(setting, 0.1) and setting["init_scale"] < 1.1 * scatter(setting, 0.1)
        return ("converged", 500, 1e-3) if near else ("stalled", 1000, 0.3)

    axes = {"dimension": [10, 20, 40, 80], "replicate": range(12), "step_size": [2e-3], "init_scale": np.linspace(0, 1.75, 8), "teacher_norm": np.geomspace(0.6, 9.6, 13)}
    sweep = open_sweep(sweep_file(axes, model, rows=lambda setting: {"weight_norm": np.full(5, 2 * setting["init_scale"])}))
    module = claims.load("bounds")
    numbers = examined(module, sweep)
    assert holds(numbers["exponents"]["teacher"], -0.5, 0.4) and holds(numbers["exponents"]["start"], 0, 0.4)
    assert all(0.6 <= row["gamma"] < 2.5 for row in numbers["rows"]) and module.judge(numbers)[0] == PART


def test_an_inputs_step_size_is_found(sweep_file):
    factors = {"gaussian": 1, "sphere": 1, "student_t": 0.5, "laplace": 1, "uniform": 1, "rademacher": 1}

    def model(setting):
        limit = 0.3 / setting["dimension"] * factors[setting["input"]] * scatter(setting, 0.1, "input")
        return ("converged", 500, 1e-3) if setting["step_size"] < limit else ("diverged", 7, 1e9)

    axes = {"dimension": [10, 30, 90], "replicate": range(8), "step_size": np.geomspace(5e-4, 0.2, 27), "input": list(factors), "init_scale": [0.3]}
    module = claims.load("inputs")
    numbers = examined(module, open_sweep(sweep_file(axes, model)))
    found = {row["input"]: row for row in numbers["rows"]}
    assert holds(found["sphere"]["ratio"], 1, 0.4) and holds(found["student_t"]["ratio"], 0.5, 0.2)
    assert module.alike(found["student_t"]) is False and module.judge(numbers)[0] in (PART, UNDECIDED)


def test_the_phases_are_found(sweep_file):
    steps = (0, 1, 10, 100, 1000)

    def rows(setting):
        least = 0.1 * (setting["dimension"] / 10) ** -0.5 * scatter(setting, 0.05)
        return {"alignment": np.array([-0.2, -0.1, least, 0.2, 0.3]), "potential": np.array([9.0, 8, 1, 0.1, 0]), "error": np.geomspace(0.3, 1e-3, 5),
                "potential_norm": np.array([3.0, 2, 0.1, 0, 0]), "phase2_step": 10}

    axes = {"dimension": [10, 40, 160], "replicate": range(12), "step_size": [1e-3], "init_scale": [0, 0.3], "teacher_norm": [0.6, 1.2]}
    module = claims.load("phases")
    numbers = examined(module, open_sweep(sweep_file(axes, lambda setting: ("converged", 1000, 1e-3), rows=rows, steps=steps)))
    assert numbers["phase2"]["share"] == 1 and holds(numbers["exponent"], -0.5, 0.2)
    verdict, reason = module.judge(numbers)
    assert verdict == PART and "falls with d" in reason


@pytest.mark.parametrize("name, axes, words", [
    ("gradient", {"step_size": [1e-3, 1e-2]}, "minibatch and population"),
    ("gradient", {"gradient": ["minibatch", "population"], "teacher_norm": [1.0]}, "teacher_norm has one value"),
    ("data", {"data": [0, 100]}, "no fresh samples beside two"),
    ("data", {"data": [100, 200, 400]}, "no fresh samples"),
    ("noise", {"noise": [0, 0.1]}, "fewer than two bounds"),
    ("noise", {"noise": [0.1, 1], "schedule": ["cosine", "inverse_time"]}, "no constant step size"),
    ("inputs", {"input": ["sphere", "student_t"]}, "no Gaussian"),
    ("zero", {"init_scale": [0.3, 1]}, "no zero initialization"),
    ("bounds", {"init_scale": [0, 1], "teacher_norm": [1.0]}, "teacher_norm has one value"),
])
def test_a_sweep_without_what_a_claim_needs_is_said(sweep_file, name, axes, words):
    with pytest.raises(ArgumentError, match=words):
        claims.load(name).measure(open_sweep(sweep_file(axes)))


# -- Tiny sweeps by the program ----------------------------------------------------------------------------------------

TINY: dict[str, list[str]] = {
    "link": ["grid.dimension=[3,5]", "training.steps=300"],
    "phases": ["grid.dimension=[3,5]", "training.steps=300"],
    "zero": ["grid.dimension=[3,5]", "training.steps=1000", "grid.step_size=[1.0e-2,2.0e-2]"],
    "rates": ["grid.dimension=[3,5,8]", "training.steps=2000", "grid.step_size={log: [2.0e-2, 0.16], count: 4}", "training.tolerance=1.0e-3"],
    "bounds": ["grid.dimension=[3,5]", "training.steps=500", "grid.step_size=1.0e-2", "grid.teacher_norm={log: [0.3, 4.8], count: 4}"],
    "inputs": ["grid.dimension=[3,5]", "training.steps=500", "grid.step_size={log: [2.0e-2, 2], count: 9}"],
    "gradient": ["grid.dimension=[3,5]", "training.steps=500", "grid.step_size={log: [2.0e-2, 2], count: 9}", "grid.teacher_norm=[0.6,4]", "grid.init_scale=[0,2]"],
    "data": ["grid.dimension=[3,5,8]", "training.steps=2000", "grid.step_size=1.0e-2", "grid.data=[online,50,100,200,400,3000]", "training.test_samples=100"],
    "noise": ["grid.dimension=[5,10]", "training.steps=2000", "grid.step_size=[1.0e-2,2.0e-2]"],
}


@needs_program
@pytest.mark.parametrize("name", claims.NAMES)
def test_a_tiny_sweep_has_a_verdict(name, tmp_path):
    sets = [part for line in [*TINY[name], "grid.replicates=3"] for part in ("--set", line)]
    done = sgdmap("run", PAPER / f"{name}.yaml", "-o", tmp_path / "tiny.h5", *sets)
    assert done.returncode == 0, done.stderr
    module, sweep = claims.load(name), open_sweep(tmp_path / "tiny.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of means over nothing
        numbers = examined(module, sweep)
        verdict, reason = module.judge(numbers)
        assert verdict in common.VERDICTS and reason
        figure = Figure(figsize=(2.4 * module.PANELS, 2.15))
        module.draw(list(figure.subplots(1, module.PANELS, squeeze=False)[0]), numbers, sweep)
        figure.canvas.draw()


# -- The report --------------------------------------------------------------------------------------------------------


def report(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([PAPER / "report.py", *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two claims' sweeps, one of them with runs to do."""
    ret = tmp_path_factory.mktemp("paper")
    for name in ("link", "noise"):
        sets = [part for line in [*TINY[name], "grid.replicates=3"] for part in ("--set", line)]
        assert sgdmap("run", PAPER / f"{name}.yaml", "-o", ret / f"{name}.h5", *sets).returncode == 0
    with h5py.File(ret / "noise.h5", "r+") as file:
        for dataset in ("status", "checksum"):
            file[dataset][:7] = 0
    return ret


class Table(HTMLParser):
    """Rows of the first table of a page, a list of texts each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = self.after = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.inside = self.inside or (tag == "table" and not self.after)
        if self.inside and tag == "tr":
            self.rows.append([])
        elif self.inside and tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.inside, self.after = False, True

    def handle_data(self, data: str) -> None:
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@needs_program
def test_the_page_opens_with_the_verdicts_and_ends_with_how_to_reproduce_them(folder):
    done = report(folder, "--json", "-o", folder / "page.html")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["claims"]
    assert [one["name"] for one in found] == list(claims.NAMES)
    page = (folder / "page.html").read_text()
    rows = [row for row in Table(page).rows if len(row) == 5][1:]  # without those of further effects, and the heading
    for i, (one, row) in enumerate(zip(found, rows, strict=True), 1):
        assert row[0] == f"{i}. {one['title']}" and row[1].endswith(one["verdict"])
        if one["name"] in ("link", "noise"):
            assert one["verdict"] != common.MISSING and row[2] == one["effects"][0]["what"]
            assert (folder / f"{one['name']}.png").exists() and (folder / f"{one['name']}.svg").exists()
        else:
            assert one["verdict"] == common.MISSING and f"no {one['name']}.h5" in row[2]
    link = found[0]["effects"][0]
    assert common.Effect(link["what"], link["value"], link["low"], link["high"], "+.2f").interval() == rows[0][4]
    assert "7 of the sweep's" in page and page.count("data:image/png;base64,") == 2
    order = [page.index(words) for words in ("<table class=\"claims\">", "id=\"link\"", "id=\"noise\"", "How to reproduce")]
    assert order == sorted(order) and f"-o {folder}/link.h5" in page[order[-1]:], "the command that the file names"
    assert not re.search(r"(src|href)=.(https?:|//)", page) and "<script" not in page


@needs_program
def test_what_is_no_result_is_one_line(folder, tmp_path):
    for arguments, status, words in ([], 2, "FOLDER is missing"), ([tmp_path / "none"], 2, "no such folder"), ([tmp_path], 2, "holds none of link.h5"), (["--what"], 2, "--what"):
        done = report(*arguments)
        assert done.returncode == status and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    (tmp_path / "link.h5").write_bytes((folder / "link.h5").read_bytes()[:3000])
    done = report(tmp_path)
    assert done.returncode == 2 and "link.h5" in done.stderr and done.stderr.count("\n") == 1
    assert report("--list").stdout.split() == list(claims.NAMES)


def test_the_script_knows_its_arguments(tmp_path):
    def run(*arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", PAPER / "run.sh", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "SGDMAP": "/no/such/program"})

    assert run("-h").returncode == 0 and "--full" in run("-h").stdout
    for arguments, words in ((["--fast"], "no option --fast"), (["tides"], "no claim tides"), (["--ranks"], "--ranks needs a value"),
                             (["--ranks", "many"], "--ranks many is no number"), (["--output", tmp_path], "/no/such/program, which is no program")):
        done = run(*arguments)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr


# -- What the claims share ---------------------------------------------------------------------------------------------


def test_numbers_are_for_readers():
    assert [common.number(value, form) for value, form in ((-1.234, ".2f"), (1.2e-5, ".2g"), (math.inf, "g"), (-math.inf, "g"), (math.nan, "g"), (None, "g"))] == [
        "−1.23", "1.2·10⁻⁵", "∞", "−∞", "–", "–"]
    assert common.count(6, 6) == "6 of 6 [0.61, 1.00]" and common.joined(["a", "b", "c"]) == "a, b and c" and common.joined([]) == ""
    effect = common.Effect("x", 0.5, 0.25, 0.75, "+.2f", " s")
    assert (effect.size(), effect.interval(), common.Effect("x", 1).interval()) == ("+0.50 s", "[+0.25, +0.75]", "–")
    assert common.plain({"a": np.array([1.0, math.nan]), "b": (np.int64(2), math.inf), 3: np.bool_(True)}) == {"a": [1.0, None], "b": [2, None], "3": True}


def test_shares():
    assert math.isnan(common.share(0, 0)["share"]) and common.share(3, 6)["share"] == 0.5
    assert common.certain(5) == pytest.approx(0.05 ** 0.2) and common.certain(0) == 0
    success, known = np.array([[1, 1], [1, 0], [0, 1], [1, 1]], bool), np.array([[1, 1], [1, 1], [0, 1], [0, 0]], bool)
    assert common.all_of_a_cluster(success, known) == (2, 3)


def test_a_paired_difference_has_the_spread_of_its_clusters():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        likes = generator.uniform(0.2, 0.8, 12)[:, None]  # a cluster's runs are alike
        first, second = generator.random((12, 4)) < likes, generator.random((12, 4)) < likes + 0.1
        found = common.paired_share_difference(first, second, np.ones((12, 4), bool), np.zeros(12, int))
        covered += found["low"] <= 0.1 <= found["high"]
    assert covered >= 52  # 57 of 60, with a standard deviation of 1.7
    alike = common.paired_share_difference(*np.ones((3, 36, 2), bool), np.zeros(36, int))
    assert alike["difference"] == 0 and -0.1 < alike["low"] < 0 < alike["high"] < 0.1
    few = common.paired_share_difference(*np.ones((3, 6, 20), bool), np.zeros(6, int))
    assert few["low"] < -0.3  # six clusters, not 120 pairs


def test_lines_and_their_intervals():
    x = np.log([1.0, 2, 4, 8])
    y = np.stack([2 * x + 1, -x, np.where(x > 1, np.nan, x)])
    assert common.slope(x, y)[:2] == pytest.approx([2, -1]) and math.isnan(common.slope(x, y)[2]) and np.isnan(common.slope(x[:1], y[:, :1])).all()
    assert common.misfit(x, y)[:2] == pytest.approx([0, 0], abs=1e-12) and common.misfit(x, x**2) > 0.1
    assert (common.draws(2, 5) == common.draws(2, 5)).all() and common.draws(2, 5).shape == (common.RESAMPLES, 2, 5)
    for values in np.random.default_rng(2).normal(1, 1, (3, 8)):
        low, high = common.student_interval(values.mean(), values[common.draws(1, 8)[:, 0]].mean(1), 8)
        # As of a mean of 8, but for the bootstrap's error: a standard deviation of 1000 is off by 2 %.
        assert (low + high) / 2 == pytest.approx(values.mean()) and (high - low) / 2 == pytest.approx(2.365 * values.std(ddof=1) / math.sqrt(8), rel=0.08)
    assert np.isnan(common.student_interval(1, np.ones(common.RESAMPLES), 1)).all()
    assert common.nearest(np.array([1, 10, 280]), 300) == 2


def test_a_sweep_is_taken_apart(sweep_file):
    def model(setting):
        return ("converged", 500, 1e-4) if setting["replicate"] else ("pending", 0, 0.0)

    sweep = open_sweep(sweep_file({"step_size": [1e-3], "init_scale": [0.3]}, model))
    one = common.box(sweep, "dimension", "replicate")
    assert one.status.dims == ("dimension", "replicate") and one.error.dims == ("dimension", "replicate", "step")
    assert common.unfinished_runs(sweep) == 1 and common.status_is(one, "converged").tolist() == [[False, True]]
    with pytest.raises(ArgumentError, match="replicate has 2 values"):
        common.box(sweep, "dimension")
    with pytest.raises(ArgumentError, match="no training.tolerance"):
        common.tolerance(sweep)
    assert common.tolerance(with_tolerance(sweep, "1.0e-3")) == 1e-3


def test_colours_are_those_of_the_house():
    module = claims.load("noise")
    assert module.COLOURS["constant"] == style.OUTCOME_COLOURS["converged"] and set(module.COLOURS) == set(module.SCHEDULES)


def test_a_mean_over_replicates_has_its_interval():
    module: Any = claims.load("noise")
    found = module._mean(np.array([1.0, 2, 3, math.nan]))
    assert found == {"value": 2.0, "low": pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-3), "high": pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-3)}
    assert math.isnan(module._mean(np.array([math.nan]))["value"]) and math.isnan(module._mean(np.array([1.0]))["low"])


def test_a_law_is_drawn_out_with_its_interval():
    drawn: Callable = claims.load("data")._drawn_out
    dims = np.array([10.0, 20, 40])
    exact = drawn(dims, 3 * dims**2, np.full(3, 0.1), 80, 9)
    # The weights of the three points at the place of a fourth are -2/3, 1/3, 4/3.
    half = 2.306 * 0.1 * math.sqrt(21) / 3
    assert exact == {"value": pytest.approx(3 * 80**2), "low": pytest.approx(3 * 80**2 * math.exp(-half), rel=1e-3),
                     "high": pytest.approx(3 * 80**2 * math.exp(half), rel=1e-3)}
    bent = drawn(dims, np.array([300.0, 2400, 4800]), np.full(3, 1e-3), 80, 9)
    assert bent["low"] < 3 * 80**2 / 2 and math.isnan(drawn(dims, np.array([1.0, math.nan, 2]), np.ones(3), 80, 9)["value"])
