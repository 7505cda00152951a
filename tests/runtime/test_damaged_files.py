"""Checkpoints, cached activations, curves and notes, cut or changed anywhere: never loaded, and no traceback."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from sae_sweeps.activations.cache import ActivationCache
from sae_sweeps.config import from_json
from sae_sweeps.launchers.slurm import node
from sae_sweeps.runtime import records
from sae_sweeps.runtime.records import write_record
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.calibration import Calibration
from sae_sweeps.training import checkpoints
from sae_sweeps.training.curve import CurveFile, last_line, read_lines
from tests.damage import damaged, examples
from tests.report.made import compared

CURVE = [{"step": 4 * at, "tokens": 240 * at, "loss": 1 / at, "mse": 0.5 / at, "seconds": 0.1} for at in (1, 2, 3)]
LATENT = {"latent": 0, "frequency": 0.5, "mean_activation": 1.0, "max_activation": 2.0}
EXAMPLE = {"activation": 2.0, "before": "a", "token": "b", "after": "c", "place": 3}
TOKENS_NS = torch.arange(12).reshape(3, 4)
ACTIVATIONS_NSD = torch.arange(60.0).reshape(3, 4, 5)


@pytest.mark.parametrize("name", ["state.safetensors", "state.sha256"])
def test_a_damaged_checkpoint_is_never_loaded(tmp_path, name):
    states = {step: {"weight": torch.full((4, 3), float(step)), "step": torch.tensor(step)} for step in (1, 2)}
    for step, state in states.items():
        checkpoints.save(tmp_path / "whole", step, state, "one")

    @examples(60)
    def check(how):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "copy")
        file = tmp_path / "copy" / "step-00000002" / name
        content = damaged(file.read_bytes(), how)
        intact = content == file.read_bytes()
        file.write_bytes(content)
        loaded = checkpoints.load_newest(tmp_path / "copy", "one")
        assert torch.equal(loaded["weight"], states[2 if intact else 1]["weight"])

    check()


def test_a_damaged_cache_entry_is_computed_again(tmp_path):
    ActivationCache(tmp_path, 1e6, {}).get(TOKENS_NS, lambda: ACTIVATIONS_NSD)
    (file,) = tmp_path.glob("*/*.safetensors")
    whole = file.read_bytes()

    @examples(150)
    def check(how):
        file.write_bytes(damaged(whole, how))
        found = ActivationCache(tmp_path, 1e6, {}).get(TOKENS_NS, lambda: ACTIVATIONS_NSD)
        assert found.dtype == torch.float32
        assert torch.equal(found, ACTIVATIONS_NSD)

    check()


@pytest.mark.parametrize(("kind", "shape"), [("I32", [3, 4, 5]), ("F32", [4, 3, 5]), ("F32", [60])])
def test_a_cache_entry_of_another_shape_or_type_is_computed_again(tmp_path, kind, shape):
    ActivationCache(tmp_path, 1e6, {}).get(TOKENS_NS, lambda: ACTIVATIONS_NSD)
    (file,) = tmp_path.glob("*/*.safetensors")
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["activations"] |= {"dtype": kind, "shape": shape}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    found = ActivationCache(tmp_path, 1e6, {}).get(TOKENS_NS, lambda: ACTIVATIONS_NSD)
    assert torch.equal(found, ACTIVATIONS_NSD)


def test_a_damaged_curve_ends_before_the_damage(tmp_path):
    file = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps(line) + "\n" for line in CURVE).encode()

    @examples(150)
    def check(how):
        file.write_bytes(damaged(whole, how))
        lines = read_lines(file)
        assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
        last_line(file)
        point_state.steps_done(tmp_path)
        CurveFile(file, 8).total("seconds")

    check()


def write_submission(folder: Path) -> dict:
    one = compared("k=2")
    content = {"task": "points", "packs": [{"one": dict(one.config)}], "max_memory": None}
    content |= {"name": "n", "directory": str(folder), "sweep": str(folder / "sweep")}
    write_record(folder / "submission.json", content)
    return content


def test_a_damaged_submission_ends_its_job_in_one_line(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    write_submission(tmp_path)
    (tmp_path / "sweep").mkdir()
    whole = (tmp_path / "submission.json").read_bytes()

    class BegunError(Exception):
        pass

    def begin(*arguments):
        raise BegunError

    for name in ("_run_pack", "_run_task"):
        monkeypatch.setattr(node, name, begin)
    monkeypatch.setattr(node.os, "chdir", lambda folder: None)

    @examples(60)
    def check(how):
        (tmp_path / "submission.json").write_bytes(damaged(whole, how))
        caplog.clear()
        try:
            assert node.main(tmp_path) == 1
            assert "submission.json is missing or damaged" in caplog.text
        except BegunError:
            (pack,) = json.loads((tmp_path / "submission.json").read_bytes())["packs"]
            assert all(from_json(values) for values in pack.values())

    check()


@pytest.mark.parametrize("name", ["calibration.json", "begun-0.json", "wandb_run.json"])
def test_a_damaged_note_counts_as_absent(tmp_path, name):
    sums = {part: {"work": 2.0, "seconds": 1.0} for part in ("model", "steps", "pack", "point")}
    contents = {
        "calibration.json": {"latest": {"here": "CPU"}, "devices": {"CPU": {"m h": sums}}},
        "begun-0.json": {"progress": [[False, 3]], "fruitless": 10, "end": 3},
        "wandb_run.json": {"id": "abc123", "project": "p", "entity": None},
    }
    file = tmp_path / name
    whole = json.dumps(contents[name], indent=2).encode()

    @examples(60)
    def check(how):
        file.write_bytes(damaged(whole, how))
        if name == "calibration.json":
            Calibration(tmp_path, is_local=True)
        elif name == "begun-0.json":
            node._record_start([], file)
        else:
            assert isinstance(records.read_record(file, {"id": str}), dict | None)

    check()
