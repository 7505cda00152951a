"""What a budget of hours is best spent on: compared with every size and number of tokens, one by one."""

import math
from dataclasses import replace

import pytest

from sae_sweeps.activations.model_info import read_model_info
from sae_sweeps.runtime.records import write_record
from sae_sweeps.studies.scaling import Trained, fit_law
from sae_sweeps.sweep.calibration import FILE, Calibration
from sae_sweeps.sweep.point import Point
from sae_sweeps.sweep.scaling_budget import Budget
from tests.conftest import composed

SIZES, TOKENS = (512, 1024, 2048, 4096), (100_000, 200_000, 400_000)


@pytest.fixture
def point(tmp_path) -> Point:
    """A point, beside a calibration: 1e9 multiply-adds of a step a second, and nothing else takes time."""
    config = composed("sae=topk", "dict_size=512", "device=cpu", f"output_root={tmp_path}")
    free = {"work": 1.0, "seconds": 0.0}
    sums = {"model": free, "steps": {"work": 1e9, "seconds": 1.0}, "pack": free, "point": free}
    place = f"{config.model.name} {config.model.hook}"
    content = {"latest": {"here": "CPU"}, "devices": {"CPU": {place: sums}}}
    write_record(tmp_path / FILE, content, FILE)
    return Point(config, tmp_path / "sweep" / "point")


def make_budget(point: Point, hours: float) -> Budget:
    return Budget(hours, Calibration(point.folder.parent.parent, is_local=True, setting="cpu"))


def law(size: int, k: int, tokens: int) -> float:
    wiggle = 1 + 1e-3 * math.sin(size + tokens)
    return wiggle * (0.3 * (size / 1000) ** -0.5 + 0.05 + 0.08 * (tokens / 100_000) ** -0.6)


def test_size_and_tokens_are_the_best_of_all_that_fit(point):
    fit = fit_law([Trained(size, 32, tokens, law(size, 32, tokens)) for size in SIZES for tokens in TOKENS])
    width = read_model_info(point.config.model.name).d_model
    previous = math.inf
    for hours in (0.02, 0.1, 0.5):
        (best,) = make_budget(point, hours).choose(fit, point)
        assert best.dict_size * best.tokens * width <= 3600e9 * hours
        assert best.predicted.value < previous
        previous = best.predicted.value
        for size in range(512, 4 * 4096 + 1, 512):  # along the edge of what fits, nothing is clearly better
            tokens = min(3600e9 * hours / width / size, 4 * 400_000)
            if tokens >= 100_000:
                assert fit.evaluate(size, 32, tokens).value > 0.98 * best.predicted.value


def test_with_one_number_of_tokens_the_largest_size_that_fits_is_chosen(point):
    fit = fit_law([Trained(size, k, 100_000, law(size, k, 100_000)) for size in SIZES for k in (16, 32)])
    width = read_model_info(point.config.model.name).d_model
    seconds = 2048 * 100_000 * width / 1e9
    best = make_budget(point, 1.001 * seconds / 3600).choose(fit, point)
    assert [(one.dict_size, one.k, one.tokens) for one in best] == [(2048, 16, 100_000), (2048, 32, 100_000)]
    assert best[0].predicted == fit.predict(2048, 16, 100_000)
    best = make_budget(point, 1e6).choose(fit, point)
    assert {one.dict_size for one in best} == {4 * 4096}
    assert make_budget(point, 1e-9).choose(fit, point) == []


def test_the_speed_is_measured_or_assumed(point):
    budget = make_budget(point, 1.0)
    assert budget.describe_speed(point.config) == "at the measured speed of a CPU"
    other = replace(point.config, model=replace(point.config.model, hook="blocks.1.hook_resid_pre"))
    assert budget.describe_speed(other) == "at the assumed speed of a CPU"
