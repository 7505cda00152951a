"""The measured speed of earlier runs: units of work, the sums that are kept, and the estimated seconds."""

import json
import re
from pathlib import Path

import pytest

from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.sweep import Point, calibration
from sae_sweeps.sweep.calibration import GUESSED_RATE, GUESSED_SECONDS, Calibration, measure_work
from tests.conftest import composed

FACTS = ModelInfo(n_layers=6, d_model=10, vocabulary=1000, context=128)
SECONDS = {"model": 8.0, "steps": 10.0, "pack": 5.0, "point": 6.0}
HOOK = "blocks.2.hook_resid_post"


def pack(*sizes: int, hook: str = HOOK, tokens: int = 1000, root: Path | str = "outputs") -> list[Point]:
    words = [f"model.hook={hook}", f"training.tokens={tokens}", "training.batch_size=10", f"output_root={root}"]
    return [Point(composed(*words, f"dict_size={size}", "k=3"), Path(f"s/{size}")) for size in sizes]


def test_the_work_of_a_pack_counts_the_model_once_and_every_point():
    longer = pack(50, tokens=4000)
    weights_below = 12 * 10 * 10 * 3  # of blocks 0 to 2; the embedding is looked up
    assert measure_work([*pack(20, 30), *longer], FACTS) == {
        "model": 4000 * weights_below,
        "steps": 1000 * 20 * 10 + 1000 * 30 * 10 + 4000 * 50 * 10,
        "pack": 1,
        "point": 3,
    }


def test_a_deeper_hook_is_more_work_for_the_model_only():
    shallow, deep = (measure_work(pack(20, hook=f"blocks.{layer}.hook_resid_post"), FACTS) for layer in (1, 4))
    assert deep["model"] - shallow["model"] == 1000 * 3 * 12 * 10 * 10
    assert deep["steps"] == shallow["steps"]


def test_the_model_runs_to_the_deepest_hook_of_a_pack():
    deep = pack(20, hook="blocks.4.hook_resid_post")
    assert measure_work([*pack(30), *deep], FACTS)["model"] == measure_work(deep, FACTS)["model"]
    assert calibration._key(calibration._find_deepest([*pack(30), *deep])) == calibration._key(deep[0].config)


@pytest.mark.parametrize(("is_local", "kind"), [(True, "cpu"), (False, "cuda")])
def test_seconds_are_guessed_if_there_is_no_file(tmp_path, is_local, kind):
    guess = Calibration(tmp_path, is_local=is_local)
    points = pack(20, 30)
    work = measure_work(points, FACTS)
    expected = work["model"] / GUESSED_RATE[kind]["model"] + work["steps"] / GUESSED_RATE[kind]["steps"]
    expected += GUESSED_SECONDS["pack"] + 2 * GUESSED_SECONDS["point"]
    assert guess.estimate_seconds(points, FACTS) == pytest.approx(expected)
    assert guess.device == {"cpu": "CPU", "cuda": "CUDA GPU"}[kind]
    assert not guess.has_measured(points[0].config)


def test_guessed_rates_are_those_of_the_published_measurements():
    results = PROJECT / "benchmarks" / "results"
    gpu = (results / "nvidia-h100-80gb-hbm3-check.md").read_text()
    (milliseconds,) = re.findall(
        r"^\| batchtopk \| 768 \| 24576 \| 32 \| 4096 \| 0 \| auto \| \d+ \| ([\d.]+)", gpu, re.M
    )
    (tokens,) = re.findall(r"^\| float32 \| 32 \| ([\d.e+]+) \|", gpu, re.M)
    cpu = (results / "amd-epyc-2-cores.md").read_text()
    (seconds,) = re.findall(r"^\| BatchTopK \| sae-sweeps \| 0% \| ([\d.]+)", cpu, re.M)
    sweeps = re.findall(r"^\| (?:3|6|12) \| one command(?: \| [\d.,x ]+){4} \| ([\d.]+)", cpu, re.M)
    assert len(sweeps) == 3
    measured = {
        "cpu": {
            "steps": 768 * 12288 * 4096 / float(seconds),
            "model": 131072 * 12 * 192**2 * 3 / (sum(map(float, sweeps)) / 3),
        },
        "cuda": {"steps": 768 * 24576 * 4096 / float(milliseconds) * 1e3, "model": float(tokens) * 12 * 768**2 * 8},
    }
    for device, rates in GUESSED_RATE.items():
        assert rates == pytest.approx(measured[device], rel=0.05)


def test_the_same_pack_is_estimated_at_its_measured_seconds(tmp_path):
    points = pack(20, 30, root=tmp_path)
    calibration.record_run(points, FACTS, "CPU with 2 threads", SECONDS, is_local=True)
    measured = Calibration(tmp_path, is_local=True)
    assert measured.device == "CPU with 2 threads"
    assert measured.has_measured(points[0].config)
    assert measured.estimate_seconds(points, FACTS) == pytest.approx(29)


def test_other_packs_are_estimated_by_their_work(tmp_path):
    calibration.record_run(pack(20, 30, root=tmp_path), FACTS, "CPU with 2 threads", SECONDS, is_local=True)
    measured = Calibration(tmp_path, is_local=True)
    larger = pack(100, 100, 200, root=tmp_path, tokens=3000)
    # 3 times the tokens; 8 times the latents; one pack; 3 points instead of 2
    expected = 3 * 8 + 3 * 8 * 10 + 5 + 1.5 * 6
    assert measured.estimate_seconds(larger, FACTS) == pytest.approx(expected)


def test_runs_are_summed_so_that_longer_runs_count_more(tmp_path):
    short, long = pack(20, root=tmp_path), pack(20, root=tmp_path, tokens=3000)
    calibration.record_run(short, FACTS, "A100", SECONDS, is_local=False)
    calibration.record_run(long, FACTS, "A100", dict.fromkeys(SECONDS, 20.0), is_local=False)
    expected = (8 + 20) / 4 + (10 + 20) / 4 + (5 + 20) / 2 + (6 + 20) / 2
    assert Calibration(tmp_path, is_local=False).estimate_seconds(short, FACTS) == pytest.approx(expected)


def test_another_model_or_hook_is_still_guessed(tmp_path):
    points = pack(20, root=tmp_path)
    calibration.record_run(points, FACTS, "A100", SECONDS, is_local=False)
    known = Calibration(tmp_path, is_local=False)
    deeper = pack(20, root=tmp_path, hook="blocks.4.hook_resid_post")
    assert known.has_measured(points[0].config)
    assert not known.has_measured(deeper[0].config)
    assert not known.has_measured(composed("model.name=gpt2", f"model.hook={HOOK}"))
    work = measure_work(deeper, FACTS)
    rate = GUESSED_RATE["cuda"]
    expected = work["model"] / rate["model"] + work["steps"] / rate["steps"] + sum(GUESSED_SECONDS.values())
    assert known.estimate_seconds(deeper, FACTS) == pytest.approx(expected)


def test_jobs_and_this_machine_each_have_their_latest_device(tmp_path):
    points = pack(20, root=tmp_path)
    for device, is_local, seconds in (("CPU with 2 threads", True, 1.0), ("V100", False, 2.0), ("A100", False, 3.0)):
        calibration.record_run(points, FACTS, device, dict.fromkeys(SECONDS, seconds), is_local=is_local)
    for is_local, device, seconds in ((True, "CPU with 2 threads", 4), (False, "A100", 12)):
        known = Calibration(tmp_path, is_local=is_local)
        assert known.device == device
        assert known.estimate_seconds(points, FACTS) == pytest.approx(seconds)


def test_jobs_are_not_estimated_by_the_speed_of_this_machine(tmp_path):
    points = pack(20, root=tmp_path)
    calibration.record_run(points, FACTS, "CPU with 2 threads", SECONDS, is_local=True)
    assert not Calibration(tmp_path, is_local=False).has_measured(points[0].config)


def test_a_gpu_is_not_estimated_by_the_speed_of_a_cpu(tmp_path):
    """Neither is the other way round, in jobs or here."""
    points = pack(20, root=tmp_path)
    for is_local in (True, False):
        calibration.record_run(points, FACTS, "CPU with 2 threads", SECONDS, is_local=is_local)
    for options in ({"is_local": False, "partition": "cuda"}, {"is_local": True, "setting": "cuda:0"}):
        guess = Calibration(tmp_path, **options)
        assert (guess.device, guess.guessed_rate) == ("CUDA GPU", GUESSED_RATE["cuda"])
        assert not guess.has_measured(points[0].config)
    assert Calibration(tmp_path, is_local=False, partition="cpu").has_measured(points[0].config)
    calibration.record_run(points, FACTS, "A100", SECONDS, is_local=False)
    guess = Calibration(tmp_path, is_local=False, setting="cpu", partition="cuda")
    assert (guess.device, guess.guessed_rate) == ("CPU", GUESSED_RATE["cpu"])


def test_a_calibration_that_cannot_be_written_logs_a_warning(tmp_path, caplog, monkeypatch):
    def full(path, value, owner):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(calibration, "write_record", full)
    calibration.record_run(pack(20, root=tmp_path), FACTS, "A100", SECONDS, is_local=False)
    assert "calibration.json (the disk is full" in caplog.text


def test_a_damaged_calibration_starts_from_scratch(tmp_path):
    (tmp_path / "calibration.json").write_text('{"latest": ')
    calibration.record_run(pack(20, root=tmp_path), FACTS, "A100", SECONDS, is_local=False)
    assert json.loads((tmp_path / "calibration.json").read_text())["latest"] == {"jobs": "A100"}


@pytest.mark.parametrize(
    ("setting", "is_local", "has_gpu", "expected"),
    [
        ("cpu", False, True, "cpu"),
        ("cuda:1", True, False, "cuda"),
        ("auto", False, False, "cuda"),  # jobs run on GPUs, until one has run on a CPU
        ("auto", True, False, "cpu"),
        ("auto", True, True, "cuda"),
    ],
)
def test_the_type_of_a_device_is_guessed_without_it(tmp_path, monkeypatch, setting, is_local, has_gpu, expected):
    monkeypatch.setattr(calibration, "GPU_DRIVER", PROJECT / ("README.md" if has_gpu else "missing"))
    assert Calibration(tmp_path, is_local=is_local, setting=setting).type == expected
