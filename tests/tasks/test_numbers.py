"""A point is never done on numbers that are none, and positions that are left out are counted."""

import json
import logging
import math

import pytest
import torch
from safetensors.torch import load_file

from sae_sweeps.sweep import Point
from sae_sweeps.tasks import point as point_module
from sae_sweeps.training import checkpoints
from sae_sweeps.training.trainer import Trainer
from tests.conftest import composed
from tests.tasks.test_pack_failures import run


def make_point(folder, tiny, *more):
    return Point(composed(*tiny, "tracking=off", *more), folder / "point")


def change_metrics(evaluate, changed):
    """Return `evaluate_whole` with other values of some metrics."""

    def evaluate_otherwise(*given, **named):
        found = evaluate(*given, **named)
        return found._replace(metrics={**found.metrics, **changed})

    return evaluate_otherwise


def read_results(point):
    return json.loads((point.folder / "results.json").read_text())


def read_states(point):
    return {file.parent.name: load_file(file) for file in sorted(point.folder.glob("checkpoint/*/*.safetensors"))}


@pytest.mark.parametrize(
    "wrong", [{"nmse": math.nan}, {"fvu": math.inf}, {"ce_degradation": -math.inf, "ce_recovered_zero": math.nan}]
)
def test_a_metric_that_is_not_finite_fails_the_point_and_keeps_its_checkpoint(tmp_path, tiny, monkeypatch, wrong):
    point, evaluate = make_point(tmp_path, tiny), point_module.evaluate_whole
    monkeypatch.setattr(point_module, "evaluate_whole", change_metrics(evaluate, wrong))
    failure = run([point])["point"]
    assert failure.startswith("there are no results, because metrics are not finite: ")
    assert all(f"{name} is {value}" in failure for name, value in wrong.items())
    assert not (point.folder / "results.json").exists()
    assert not (point.folder / "sae").exists()
    assert len(read_states(point)) == 2
    monkeypatch.setattr(point_module, "evaluate_whole", evaluate)
    assert run([point]) == {"point": "done"}


def test_a_metric_without_a_value_has_its_reason_in_the_results(tmp_path, tiny, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    point, evaluate = make_point(tmp_path, tiny), point_module.evaluate_whole
    monkeypatch.setattr(point_module, "evaluate_whole", change_metrics(evaluate, {"fvu": None}))
    assert run([point]) == {"point": "done"}
    results = read_results(point)
    assert results["metrics"]["fvu"] is None
    assert results["missing"] == {"fvu": "all held-out activations are equal"}
    assert "fvu none (all held-out activations are equal)" in caplog.text


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_dec"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path, tiny, monkeypatch, name, value):
    point, step = make_point(tmp_path, tiny, "training.checkpoint_every=2"), Trainer.step

    def poison(self, x_BD):
        result = step(self, x_BD)
        if self.steps_done == 4:
            with torch.no_grad():
                self.sae.get_parameter(name)[0] = value
        return result

    monkeypatch.setattr(Trainer, "step", poison)
    assert f"sae.{name}" in run([point])["point"]
    assert list(read_states(point)) == ["step-00000002"]
    monkeypatch.setattr(Trainer, "step", step)
    assert run([point]) == {"point": "done"}


def test_the_results_and_the_log_have_the_numbers_of_positions_left_out(tmp_path, tiny, caplog):
    caplog.set_level(logging.INFO)
    special, none = (
        make_point(tmp_path / exclude, tiny, "evaluation.tokens=1000", f"dataset.exclude={exclude}")
        for exclude in ("special", "none")
    )
    assert run([special]) == run([none]) == {"point": "done"}
    found, other = read_results(special), read_results(none)
    assert found["metrics"]["held_out_left_out"] > 0 == other["metrics"]["held_out_left_out"]
    assert found["training"]["left_out"] > 0 == other["training"]["left_out"]
    assert found["metrics"]["nmse"] != other["metrics"]["nmse"]
    line = f"left out {found['training']['left_out']:,} positions of the training text"
    assert line in caplog.text
    assert f"left out {found['metrics']['held_out_left_out']} of" in caplog.text


@pytest.mark.parametrize(("exclude", "restarts"), [("special", True), ("[1]", False), ("none", False)])
def test_a_checkpoint_without_the_rule_is_resumed_only_if_its_activations_are_the_same(
    tmp_path, tiny, monkeypatch, exclude, restarts
):
    whole = make_point(tmp_path / "whole", tiny, f"dataset.exclude={exclude}")
    assert run([whole]) == {"point": "done"}
    point, finish = make_point(tmp_path, tiny, f"dataset.exclude={exclude}"), point_module.PointRun.finish
    monkeypatch.setattr(point_module.PointRun, "finish", lambda self, *given: 1 / 0)
    assert "division" in run([point])["point"]
    folder = point.folder / "checkpoint"
    state = checkpoints.load_newest(folder, point.name)
    del state[point_module.LEFT_OUT]
    checkpoints.save(folder, int(state["steps_done"]), state, point.name)
    monkeypatch.setattr(point_module.PointRun, "finish", finish)
    assert run([point]) == {"point": "done"}
    restarted = "training starts again from step 0" in (point.folder / "launch.log").read_text()
    assert restarted is restarts
    assert read_results(point)["metrics"] == read_results(whole)["metrics"]
    assert read_results(point)["training"]["left_out"] == read_results(whole)["training"]["left_out"]
