"""SAEs whose files are no longer those that results are about: every task says so, and none shows wrong numbers."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from sae_sweeps.report.cautions import list_cautions
from sae_sweeps.report.finished import find_finished
from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.report.studies import list_outdated
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import group_by_seed
from tests.commands import rewrite_results
from tests.conftest import GIVEN
from tests.tasks.conftest import done, point

CHANGED = "changed after results.json was written"


def edit(config, **values) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text()), **values}))


@pytest.fixture
def replaced(first):
    """The sweep with other weights of two SAEs, which fit their configuration."""
    points = [point(first, f"{architecture}-48") for architecture in ("topk", "batchtopk")]
    for file in (one / "sae" / "sae_weights.safetensors" for one in points):
        save_file({name: -tensor for name, tensor in load_file(file).items()}, file)
    return first, points


def test_other_weights_are_refused_by_all_that_loads_them(replaced, command):
    first, points = replaced
    problem = "sae_weights.safetensors is not the file that cfg.json was written with"
    for task in ("export", "evaluate"):
        ran = command(f"task={task}", *GIVEN)
        assert ran.code == 1
        for one in points:
            (line,) = [line for line in ran.err.splitlines() if f"{one.name}/sae: cannot be read" in line]
            assert problem in line
    assert len(list((first / "export").glob("*/*/cfg.json"))) == len(done(first, "evaluate")) == 2  # of the others


def test_the_report_says_which_results_may_be_of_another_sae(replaced, caplog):
    first, points = replaced
    loaded = load_sweep(Sweep(first))
    cautions = list_cautions(group_by_seed(loaded.points))
    for one in points:
        sentence = f"{one.name}: sae/sae_weights.safetensors {CHANGED}"
        assert sentence in caplog.text
        assert sum(sentence in caution for caution in cautions) == 1


def test_a_copied_sweep_is_unchanged(first, caplog):
    assert all(point.results for point in load_sweep(Sweep(first)).points)
    assert caplog.text == ""


def test_an_edited_configuration_has_its_studies_run_again_and_no_metrics_in_its_card(first, command):
    one = point(first, "topk-48")
    settings = ["task=evaluate", f"sae={one}", *GIVEN]
    command(*settings)
    (study,) = done(first, "evaluate")
    before = json.loads((study / "results.json").read_text())
    edit(one / "sae" / "cfg.json", normalize_activations="none")
    command(*settings)
    after = json.loads((study / "results.json").read_text())
    assert after["metrics"]["nmse"] != before["metrics"]["nmse"]
    log = (study / "launch.log").read_text()
    assert "cfg.json changed after this study, which is run again" in log
    assert f"sae/cfg.json {CHANGED}" in log
    command(*settings)
    assert json.loads((study / "results.json").read_text()) == after

    ran = command("task=export", f"sae={one}", *GIVEN)
    assert ran.code == 0
    (card,) = (first / "export").glob("*/*/README.md")
    assert "## Metrics" not in card.read_text()


def test_results_of_another_point_are_not_believed(first):
    one, other = point(first, "topk-48"), point(first, "topk-32")
    shutil.copy(other / "results.json", one / "results.json")
    states = {found.name: (found.state.state, found.results is None) for found in load_sweep(Sweep(first)).points}
    assert states[one.name] == ("interrupted", True)
    assert states[other.name] == ("done", False)


def test_the_report_says_which_studies_are_of_other_files(first):
    one = point(first, "topk-48")
    studies = find_finished(Sweep(first))
    assert list_outdated(studies, load_sweep(Sweep(first)).points) == []
    edit(one / "sae" / "cfg.json", device="cuda")
    rewrite_results(one)  # as if it had been trained again
    sentences = list_outdated(studies, load_sweep(Sweep(first)).points)
    assert len(sentences) == 4  # stitch, meta_sae, meta_sizes, latents
    assert all(f"is about another sae/cfg.json of {one.name} than the metrics here." in text for text in sentences)


@pytest.mark.parametrize("name", ["latents.parquet", "metrics.jsonl", "sae/cfg.json"])
def test_a_study_with_a_damaged_file_runs_again(first, command, name):
    study = done(first, "meta_sae", "topk")[0]
    whole = (study / name).read_bytes()
    (study / name).write_bytes(whole[:-9])
    ran = command("task=meta_sae", *GIVEN)
    assert ran.code == 0
    assert f"{name} changed after this study, which is run again" in (study / "launch.log").read_text()
    if name != "metrics.jsonl":  # a line that is lost stays lost, as the checkpoint is the last
        assert (study / name).read_bytes() == whole


def test_a_change_before_a_copy_is_noticed(first, tmp_path):
    config = point(first, "topk-48") / "sae" / "cfg.json"
    edit(config, normalize_activations="none")
    copy = Sweep(shutil.copytree(first, tmp_path / "copy" / "first"))  # results.json may be copied last
    changed = {one.name: list(one.changed) for one in load_sweep(copy).points}
    assert changed.pop(config.parent.parent.name) == ["sae/cfg.json"]
    assert not any(changed.values())
