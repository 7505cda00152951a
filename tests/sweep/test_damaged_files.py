"""Files that this project wrote and reads again, cut or changed anywhere: a line that names the file, no traceback."""

import contextlib
import json

import pytest
import torch

from sae_sweeps.config import from_json
from sae_sweeps.report import finished, studies
from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.report.points import list_points, read_curve
from sae_sweeps.report.terminal import points_table, seeds_table
from sae_sweeps.runtime import records
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import read_json, write_json, write_table
from sae_sweeps.studies.latent_tables import SCHEMA
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.comparison import group_by_seed
from sae_sweeps.sweep.saved_saes import find_saved_sae
from sae_sweeps.tasks import run_studies
from tests.damage import damaged, examples
from tests.report.made import compared, config, put, some_metrics

CURVE = [{"step": 4 * at, "tokens": 240 * at, "loss": 1 / at, "mse": 0.5 / at, "seconds": 0.1} for at in (1, 2, 3)]
LATENT = {"latent": 0, "frequency": 0.5, "mean_activation": 1.0, "max_activation": 2.0}
EXAMPLE = {"activation": 2.0, "before": "a", "token": "b", "after": "c", "place": 3}
TOKENS_NS = torch.arange(12).reshape(3, 4)
ACTIVATIONS_NSD = torch.arange(60.0).reshape(3, 4, 5)


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    """A sweep with two points that are done and one that failed, a study, a submission and a calibration."""
    sweep = Sweep(tmp_path / "outputs" / "sweep")
    put(sweep, "one", "k=2", metrics=some_metrics(1), state="running", curve=CURVE)
    put(sweep, "two", "k=2", "seed=1", metrics=some_metrics(2), state="running", curve=CURVE)
    put(sweep, "broken", "k=3", state="failed", reason="the loss is nan", curve=CURVE)
    entry = {"point": "one", "folder": "f", "format": "sae_lens", "architecture": "topk", "dict_size": 8, "k": 2}
    about = {"task": "evaluate", "name": "s", "sae": {**entry, "seed": 0, "wandb_run": None}, "settings": {"k": 2}}
    metrics = {**some_metrics(3), "held_out_tokens": 100}
    settings_of_one = read_json(sweep.folder / "sweep.json")["points"]["one"]["config"]
    for task in ("evaluate", "latents"):
        content = {"study": {**about, "task": task}, "metrics": metrics, "seconds": 1.0, "config": settings_of_one}
        write_json(sweep.folder / task / "s" / "results.json", content)
    tokens, histogram = [{"token": "a", "logit": 0.5}], {"width": 0.5, "counts": [1]}
    rows = {**LATENT, "examples": [EXAMPLE], "promoted": tokens, "suppressed": tokens}
    rows |= {"histogram": histogram, "logits": {"low": -1.0, **histogram}}
    write_table(
        sweep.folder / "latents" / "s" / "latents.parquet", SCHEMA, [{key: [rows[key]] for key in SCHEMA.names}]
    )
    return sweep


def read_everything(sweep: Sweep) -> None:
    """Read what status, report and a rerun read, and show it."""
    loaded = load_sweep(sweep)
    loaded.write_results_csv()
    console.print(points_table("sweep", loaded.points))
    console.print(seeds_table("sweep", loaded.points) or "")
    list_points(group_by_seed(loaded.points))  # of the page, its parts: the whole takes a second
    for point in loaded.points:
        read_curve(point)
    found = finished.find_finished(sweep)
    studies.collect_studies(found)
    studies.list_evaluated(found)
    for one in found:
        with finished.skip_unreadable(one.folder):
            one.read_table("latents").to_pydict()
    run_studies._write_csv(sweep.folder / "evaluate")
    for point in loaded.points:
        if point.state.state == point_state.DONE:
            assert {"nmse", "l0"} <= point.metrics.keys()
            assert all(isinstance(value, float | int) for value in point.metrics.values())
        point_state.read_note(sweep.folder / point.name)
    sweep.set_state("one", "done")


READ = [
    "sweep.json",
    "one/results.json",
    "one/state.json",
    "broken/state.json",
    "one/metrics.jsonl",
    "evaluate/s/results.json",
    "latents/s/results.json",
    "latents/s/latents.parquet",
]


@pytest.mark.parametrize("name", READ)
def test_a_damaged_file_of_a_sweep_never_breaks_the_report(sweep, name):
    file = sweep.folder / name
    whole = file.read_bytes()
    kept = (sweep.folder / "sweep.json").read_bytes()

    @examples(25)
    def check(how):
        content = damaged(whole, how)
        file.write_bytes(content)
        read_everything(sweep)
        aside = list(sweep.folder.glob("sweep.json.damaged-*"))
        assert [damaged.read_bytes() for damaged in aside] in ([], [content])
        for damaged_file in aside:
            damaged_file.unlink()
        (sweep.folder / "sweep.json").write_bytes(kept)

    check()


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {}},
        {"metrics": {"nmse": 0.5}},
        {"metrics": {"nmse": "0.5", "l0": 2.0}},
        {"metrics": {"nmse": True, "l0": 2.0}},
        {"metrics": [0.5]},
        {"training": None},
        {"config": "x"},
    ],
)
def test_results_without_their_numbers_are_not_done(sweep, change, caplog):
    file = sweep.folder / "one" / "results.json"
    write_json(file, {**read_json(file), **change})
    records.warn_damaged.cache_clear()
    assert not point_state.is_done(file.parent)
    assert point_state.read_state(file.parent).state == "interrupted"  # a rerun evaluates it again
    assert [record.getMessage().split()[0] for record in caplog.records] == [str(file)]  # one line, however often read


@examples(40)
def test_damaged_settings_are_refused_or_settings(how):
    whole = json.dumps(dict(compared("k=2").config)).encode()
    try:
        values = json.loads(damaged(whole, how))
    except ValueError:
        return
    with contextlib.suppress(ValueError):
        from_json(values)


def test_a_point_with_damaged_settings_is_named(tmp_path):
    point = put(Sweep(tmp_path / "sweep"), "one", "k=2", metrics=some_metrics(1))
    write_json(point / "results.json", {**read_json(point / "results.json"), "config": {"k": 2}})
    (point / "sae").mkdir()
    for name in ("cfg.json", "sae_weights.safetensors"):
        (point / "sae" / name).touch()
    with pytest.raises(ConfigError, match=r"saved=.*the results\.json of the point holds no configuration"):
        find_saved_sae(str(point), "saved", config())


def test_a_damaged_table_is_found_by_its_checksum(sweep):
    file = sweep.folder / "latents" / "s" / "latents.parquet"
    found = next(one for one in finished.find_finished(sweep) if one.task == "latents")
    whole = file.read_bytes()
    assert found.read_table("latents").to_pydict()["frequency"] == [0.5]
    for place in range(4, len(whole) // 2, 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with finished.skip_unreadable(found.folder):
            assert found.read_table("latents").to_pydict()["frequency"] == [0.5]
