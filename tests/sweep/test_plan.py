"""The plan of a sweep, and the limits that it may exceed."""

import json
import re
import shlex
from pathlib import Path

import pytest

from sae_sweeps.activations.hub import unreachable_reason
from sae_sweeps.activations.model_info import PUBLISHED, read_model_info
from sae_sweeps.config import LimitsConfig
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.sweep import Point, calibration
from sae_sweeps.sweep.memory import FLOAT, pack_bytes, point_bytes, shared_bytes
from sae_sweeps.sweep.plan import GIB, Plan
from sae_sweeps.sweep.preflight import Preflight
from tests.commands import DONE_RESULTS
from tests.conftest import composed, launch

D = 16  # d_model of the tiny model, which has 2 blocks and a vocabulary of 300
PARAMETERS = 12 * D * D * 2 + 300 * D


@pytest.fixture
def points(tiny, tmp_path):
    """A function that makes a point from the settings in each of its arguments."""

    def make(*words: str) -> list[Point]:
        root = f"output_root={tmp_path}"
        return [Point(composed(*tiny, root, *word.split()), tmp_path / "s" / word.replace(" ", "-")) for word in words]

    return make


def finish(point: Point) -> None:
    point.folder.mkdir(parents=True)
    (point.folder / "results.json").write_text(DONE_RESULTS)


def test_packs_and_tokens_are_counted_for_points_that_are_not_done(points):
    three = "training.tokens=600"
    sweep = points("k=3", f"k=4 {three}", "k=5", "k=6 dataset.seed=1", "k=7")
    finish(sweep[4])
    plan = Plan.from_points(sweep, None, is_local=True)
    assert (plan.points, plan.done, plan.packs) == (5, 1, [3, 1])
    assert plan.model_tokens == 2400 + 2400
    assert plan.sae_tokens == 3 * 2400 + 600
    assert Plan.from_points(sweep, 2, is_local=True).packs == [2, 1, 1]
    assert Plan.from_points(sweep, 1, is_local=True).model_tokens == 3 * 2400 + 600


def test_memory_is_that_of_the_model_and_the_largest_pack(points):
    sweep = points("dict_size=48", "dict_size=96", "dict_size=480 dataset.seed=1")
    large, facts = sweep[2].config, read_model_info(sweep[2].config.model.name)
    expected = point_bytes(large, D) + shared_bytes(large, facts, "cpu") + FLOAT * PARAMETERS
    assert Plan.from_points(sweep, None, is_local=True).memory == expected
    both = sum(point_bytes(point.config, D) for point in sweep[:2])
    shared = shared_bytes(sweep[1].config, facts, "cpu") + FLOAT * PARAMETERS
    assert Plan.from_points(sweep[:2], None, is_local=True).memory == both + shared


def test_disk_is_three_checkpoints_with_adam_moments_and_the_sae(points):
    sweep = points("dict_size=48", "dict_size=96")
    matrices = 2 * 48 * D * 4
    assert Plan.from_points(sweep, None, is_local=True).disk == 10 * matrices + 10 * 2 * matrices
    finish(sweep[1])
    assert Plan.from_points(sweep, None, is_local=True).disk == 10 * matrices


def test_hours_are_those_of_an_earlier_run_of_the_same_pack(points):
    sweep = points("k=3", "k=4")
    guess = Plan.from_points(sweep, None, is_local=True)
    assert guess.source.startswith("guessed for a CPU")
    assert guess.hours > 60 / 3600
    facts = read_model_info(sweep[0].config.model.name)
    seconds = dict.fromkeys(("model", "steps", "pack", "point"), 900.0)
    calibration.record_run(sweep, facts, "CPU with 2 threads", seconds, is_local=True)
    plan = Plan.from_points(sweep, None, is_local=True)
    assert plan.hours == pytest.approx(1)
    assert plan.source == "estimated from the speed of earlier runs on CPU with 2 threads"
    # in two packs, the model and the start of a pack count twice
    assert Plan.from_points(sweep, 1, is_local=True).hours == pytest.approx(1.5)
    assert Plan.from_points(sweep[:1], None, is_local=True).hours == pytest.approx(0.75)
    calibration.record_run(sweep, facts, "CPU with 2 threads", dict.fromkeys(seconds, 2700.0), is_local=True)
    assert Plan.from_points(sweep, None, is_local=True).hours == pytest.approx(2)
    on_any = points("k=3 device=auto")
    job = "this model has not run here yet"
    assert Plan.from_points(on_any, None, is_local=False).source.startswith(f"guessed for a CUDA GPU: {job}")
    on_cpu = Plan.from_points(on_any, None, is_local=False, partition="cpu")
    assert on_cpu.source.startswith(f"guessed for a CPU: {job}")


def test_hours_are_a_guess_if_one_model_has_not_run(points):
    sweep = points("k=3", "k=4 model.hook=blocks.0.hook_resid_post")
    seconds = dict.fromkeys(("model", "steps", "pack", "point"), 1.0)
    calibration.record_run(sweep[:1], read_model_info(sweep[0].config.model.name), "CPU", seconds, is_local=True)
    assert Plan.from_points(sweep[:1], None, is_local=True).source.startswith("estimated from the speed")
    assert Plan.from_points(sweep, None, is_local=True).source.startswith("guessed")


def test_a_finished_sweep_takes_nothing(points, capsys):
    sweep = points("k=3", "k=4")
    for point in sweep:
        finish(point)
    plan = Plan.from_points(sweep, None, is_local=True)
    assert (plan.packs, plan.model_tokens, plan.memory, plan.disk, plan.hours) == ([], 0, 0, 0, 0)
    plan.show()
    shown = capsys.readouterr().out
    assert "2 (2 are done already)" in shown
    assert "packs   none" in shown


def make_plan(**values) -> Plan:
    usual = {"points": 10, "done": 4, "packs": [6], "model_tokens": 1000, "sae_tokens": 6000}
    return Plan(**{**usual, "memory": GIB, "disk": 2.0 * GIB, "hours": 1.5, "source": "a guess for X", **values})


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        ({}, []),
        ({"points": 10, "disk_gib": 2.0, "gpu_hours": 1.5}, []),
        ({"points": 9}, ["points"]),
        ({"disk_gib": 1.99}, ["disk_gib"]),
        ({"gpu_hours": 1.49}, ["gpu_hours"]),
        ({"points": 1, "disk_gib": 0.5, "gpu_hours": 0.1}, ["points", "disk_gib", "gpu_hours"]),
        ({"points": None}, []),
    ],
)
def test_each_limit_that_is_exceeded_is_named(limits, names):
    found = make_plan().exceeded_limits(LimitsConfig(**limits))
    assert [error.setting for error in found] == [f"limits.{name}" for name in names]
    for error in found:
        assert error.value == limits[error.setting.removeprefix("limits.")]


def test_large_numbers_of_points_are_printed_in_full():
    (error,) = make_plan(points=12_345).exceeded_limits(LimitsConfig())
    assert error.problem == "the sweep needs 12,345 points, which is more than this limit"


def test_an_exceeded_limit_names_the_amount_and_its_source():
    found = make_plan(points=1200).exceeded_limits(LimitsConfig(disk_gib=1, gpu_hours=1))
    assert [error.problem for error in found] == [
        "the sweep needs 1,200 points, which is more than this limit",
        "the sweep needs 2 GiB of checkpoints and SAEs, which is more than this limit",
        "the sweep needs 1.5 hours (a guess for X), which is more than this limit",
    ]


def test_a_plan_prints_a_line_per_quantity(capsys):
    make_plan(packs=[3, 2, 1]).show()
    assert capsys.readouterr().out.splitlines() == [
        "points  10 (4 are done already)",
        "packs   3 (3 + 2 + 1 points)",
        "tokens  1,000 through the language model, 6,000 through the SAEs",
        "memory  up to 1.00 GiB on a device (estimate)",
        "disk    2.00 GiB at most, for checkpoints and SAEs",
        "hours   1.50 in total, a guess for X",
    ]
    make_plan(packs=[4] * 12 + [1]).show()
    assert "packs   13 (at most 4 points)" in capsys.readouterr().out


def test_planning_writes_nothing_if_the_output_root_is_missing(tiny, tmp_path):
    root = tmp_path / "none"
    point = Point(composed(*tiny, f"output_root={root}"), Path(root) / "s" / "p")
    Plan.from_points([point], None, is_local=True)
    assert not root.exists()


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A machine without cached models and data sets, and without access to the hub."""
    caches = (read_model_info, unreachable_reason)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: 1 / 0)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("experiment", ["gpt2_small", "gemma2_2b"])
def test_without_a_hub_the_papers_sweeps_can_be_planned_but_not_run(no_hub, experiment):
    sweep = f"experiment={experiment}"
    assert Preflight().find_problems(composed(sweep, "task=plan")) == []
    assert [error.setting for error in Preflight().find_problems(composed(sweep))] == ["model.name", "dataset.name"]
    refused = {
        "model.name=me/another": "model.name",  # has no published sizes
        "model.hook=blocks.26.hook_resid_pre": "model.hook",
        "dataset.seq_len=10000": "dataset.seq_len",
    }
    for word, setting in refused.items():
        assert [error.setting for error in Preflight().find_problems(composed(sweep, "task=plan", word))] == [setting]


def test_a_plan_without_a_hub_uses_the_published_sizes(no_hub, tmp_path, capsys):
    config = composed("experiment=gemma2_2b", "task=plan")
    plan = Plan.from_points([Point(config, tmp_path / "point")], None, is_local=True)
    assert plan.disk == 10 * 2 * 16384 * 2304 * 4
    model = 12 * 2304**2 * 26 + 256000 * 2304
    point = Point(config, tmp_path / "point")
    assert plan.memory == pack_bytes([point], PUBLISHED["google/gemma-2-2b"], "cpu") + 2 * model  # bfloat16
    model, steps = 1e9 * 12 * 2304**2 * 12, 1e9 * 16384 * 2304  # blocks 0 to 11, and the encoder
    assert plan.hours == pytest.approx((model / 3e10 + steps / 8e10 + 60 + 10) / 3600)
    plan.show()
    shown = capsys.readouterr().out
    assumed = "(assumed multiply-adds a second: 3e10 in the model, 8e10 in training steps)"
    assert f"guessed for a CPU: this model has not run here yet {assumed}" in shown
    assert "not checked: model.name=google/gemma-2-2b is not a local path" in shown
    assert "the plan uses its published sizes (26 layers, d = 2304, 256,000 tokens)" in shown
    assert "not checked: dataset.name=Skylion007/openwebtext is not a local path" in shown
    trained = composed("experiment=gemma2_2b")
    with pytest.raises(ConfigError, match="hub cannot be reached"):
        Plan.from_points([Point(trained, tmp_path / "point")], None, is_local=True)


def test_nothing_is_unverified_if_the_hub_answers(no_hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: None)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"n_layer": 10, "n_embd": 8, "vocab_size": 50, "n_positions": 128}))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(config))
    plan = Plan.from_points(
        [Point(composed("experiment=gpt2_small", "task=plan"), tmp_path / "point")], None, is_local=True
    )
    assert plan.unverified == ()
    assert plan.disk == 10 * 2 * 12288 * 8 * 4


def test_every_model_preset_has_published_sizes():
    named = {composed(f"model={file.stem}").model.name for file in (PROJECT / "conf" / "model").glob("*.yaml")}
    assert set(PUBLISHED) == {name for name in named if not name.startswith("/")}


PLANS = re.findall(
    r"^    python launch\.py (.* task=plan .*)\n\n((?:    .*\n)+)",
    (PROJECT / "docs" / "paper.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(("command", "shown"), PLANS)
def test_the_plans_in_the_paper_page_are_what_the_command_prints(tmp_path, command, shown):
    ran = launch(*shlex.split(command), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[:6] == [line.strip() for line in shown.splitlines()]
    assert ran.stdout.count("not checked: ") == 2
    assert not (tmp_path / "outputs").exists()


def test_the_paper_page_has_a_plan_for_each_of_its_sweeps():
    assert [command.split()[1] for command, _ in PLANS] == ["experiment=gpt2_small", "experiment=gemma2_2b"]
