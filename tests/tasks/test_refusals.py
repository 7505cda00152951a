"""Commands that cannot be studied fail with one line and exit code 1, and leave nothing behind."""

import json
import shutil

import pytest

from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks import stitch
from tests.commands import DONE_RESULTS
from tests.conftest import GIVEN, composed, launch
from tests.tasks.conftest import contents, point, undo

SOURCES = {"nowhere": None, "empty": {}, "foreign": {"d_sae": 48, "metadata": {"hook_name": "h"}}, "bare": {"d_in": 3}}


@pytest.fixture
def two_points(first, tmp_path):
    """Return two of the sweep's points by the settings that name them; beside it are folders without a usable SAE."""
    for name, content in SOURCES.items():
        if content is not None:
            (tmp_path / name).mkdir()
        if content:
            (tmp_path / name / "cfg.json").write_text(json.dumps(content))
            (tmp_path / name / "sae_weights.safetensors").touch()
    return {"small": point(first, "topk-32"), "large": point(first, "topk-48")}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["task=stitch", "small={small}"],
            "small={small}: needs large as well: task=stitch compares two SAEs. Fix: ",
        ),
        (
            ["task=stitch", "large={large}"],
            "large={large}: needs small as well: task=stitch compares two SAEs. Fix: ",
        ),
        (["task=stitch", "small=nowhere", "large={large}"], "small=nowhere: there is no such folder"),
        (
            ["task=stitch", "small={small}", "large=empty"],
            "large=empty: holds no SAE; the folder must contain the files of one of these formats (sae_lens: ",
        ),
        (["task=stitch", "small={small}", "large=foreign"], "large=foreign: cannot be read as sae_lens (cfg.json"),
        (["task=latents", "sae=./foreign"], "saved=./foreign: cannot be read as sae_lens (cfg.json has no "),
        (["task=meta_sae", "sae=./bare"], "saved=./bare: cannot be read as sae_lens (cfg.json has no "),
        (["task=latents", "sae={small}/nowhere"], "saved={small}/nowhere: there is no such folder"),
        (["task=stitch", "stitch.threshold=0"], "stitch.threshold=0.0: must be a cosine in (0, 1]"),
        (["task=stitch", "stitch.threshold=2"], "stitch.threshold=2.0: must be a cosine in (0, 1]"),
        (["task=meta_sae", "meta.k=0"], "meta.k=0: must be at least 1. Fix: meta.k=1"),
        (["-m", "task=meta_sae", "meta.k=2,0"], "meta.k=0: must be at least 1. Fix: meta.k=1"),
        (["task=meta_sae", "meta.dict_size=3"], "meta.k=4: must be at most meta.dict_size=3"),
        (["task=meta_sae", "name=furst"], "name=furst: no such sweep in outputs; the sweeps there are: first"),
        (
            ["-m", "task=latents", "name=first,furst"],
            "name=outputs/first, outputs/furst: must name one sweep, because a command",
        ),
        (
            ["-m", "task=status", "name=first,furst"],
            "name=outputs/first, outputs/furst: must name one sweep, because a command",
        ),
    ],
)
def test_an_invalid_command_is_one_line_and_leaves_nothing(two_points, command, tmp_path, words, line):
    before = contents(tmp_path)
    formatted = [word.format(**two_points) for word in words]
    ran = command(*[word for word in GIVEN if word.partition("=")[0] not in str(words)], *formatted)
    assert (ran.code, ran.out) == (1, "")
    (message,) = ran.err.splitlines()
    assert message.startswith(f"error: {line.format(**two_points)}")
    assert "Fix: " in message
    assert contents(tmp_path) == before


def test_the_command_in_a_process_of_its_own_is_refused_in_one_line(two_points, tmp_path):
    before = contents(tmp_path)
    ran = launch("task=stitch", "name=first", "small=nowhere", f"large={two_points['large']}", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stdout == ""
    (message,) = ran.stderr.splitlines()
    assert message.startswith("error: small=nowhere: ")
    assert contents(tmp_path) == before


def test_an_unknown_task_in_then_is_refused_with_the_known_ones(command, tiny, tmp_path):
    ran = command(*tiny, "then=[stich]")
    assert ran.code == 1
    assert ran.err.startswith("error: then=['stich']: names tasks that cannot run after training: stich.")
    assert "stitch, join, match, meta_sae, meta_sizes, latents, evaluate, saebench, probe, report" in ran.err
    assert not list(tmp_path.glob("outputs/*/*"))


def test_more_meta_latents_than_directions_are_refused(first, command):
    undo(first, "meta_sae")
    ran = command("task=meta_sae", *GIVEN, "meta.dict_size=49", f"sae={point(first, 'topk-48')}")
    assert ran.code == 1
    (message,) = ran.err.splitlines()
    problem = "the number of meta-latents must be between 1 and 46, the number of decoder directions"
    assert f"meta.dict_size=49: {problem}. Fix: set meta.dict_size=11" in message
    assert "Traceback" not in ran.out
    assert not [
        name for name in contents(first / "meta_sae") if not name.endswith((".lock", "launch.log", "decomposed.json"))
    ]
    assert not (first / "meta_sae.csv").exists()


def remove_points(sweep, pattern: str) -> None:
    """Remove the points whose names match from a sweep."""
    removed = {folder.name for folder in sweep.glob(pattern)}
    for name in removed:
        shutil.rmtree(sweep / name)
    kept = {name: point for name, point in Sweep(sweep).read()["points"].items() if name not in removed}
    Sweep(sweep).update(lambda known: known.update(points=kept))


def test_a_sweep_without_neighbouring_sizes_cannot_be_stitched(first, command):
    remove_points(first, "*-32-*")
    ran = command("task=stitch", *GIVEN)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "stitch: no two points of sweep first differ only in dict_size, so no pair can be stitched\n"


@pytest.mark.parametrize("task", ["meta_sae", "latents"])
def test_a_sweep_without_points_is_reported(first, command, task):
    remove_points(first, "*-seed*")
    ran = command(f"task={task}", *GIVEN)
    assert (ran.code, ran.out, ran.err) == (1, "", f"{task}: the sweep has no points\n")


def test_a_copy_of_another_hook_or_model_is_refused(first, command, tmp_path, model_settings):
    sae = point(first, "topk-48") / "sae"
    sae.rename(tmp_path / "copy")
    given = ["task=latents", *GIVEN, "sae=./copy"]
    ran = command(*given, *model_settings, "model.hook=blocks.0.hook_resid_pre")
    assert ran.code == 1
    hook = "blocks.1.hook_resid_pre"
    problem = f"was trained at {hook}, but the command uses blocks.0.hook_resid_pre. Fix: model.hook={hook}"
    assert ran.err == f"error: saved=./copy: {problem}\n"
    model = json.loads((tmp_path / "copy" / "cfg.json").read_text())["metadata"]["model_name"]
    ran = command(*given, f"model.hook={hook}")
    problem = f"was trained on {model}, but the command uses {PROJECT}/embedded/model. Fix: set model=..."
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: saved=./copy: {problem} to its model, or add 'model.aliases=[")
    ran = command(*given, f"model.hook={hook}", f"model.aliases=[{model}]")
    problem = f"takes activations of width 16, but the activations of {PROJECT}/embedded/model have width 192"
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: saved=./copy: {problem}. Fix: set model=")


def test_stitching_saes_with_different_normalization_is_refused(first, command):
    sae = point(first, "topk-48") / "sae"
    undo(first, "stitch")
    config = json.loads((sae / "cfg.json").read_text())
    (sae / "cfg.json").write_text(json.dumps(config | {"normalize_activations": "none"}))
    ran = command("task=stitch", *GIVEN, f"small={point(first, 'topk-32')}", f"large={sae}")
    assert ran.code == 1
    (message,) = ran.err.splitlines()
    assert "both SAEs must normalise activations in the same way, but this one uses 'layer_norm' and " in message
    assert "Fix: " in message


def test_settings_of_then_tasks_cannot_differ_among_the_points(command, tiny):
    ran = command("-m", *tiny, "meta.k=2,3", "then=[meta_sae]")
    problem = "runs once for all points, so the settings of these tasks must be equal in all points"
    assert (ran.code, ran.out) == (1, "")
    fix = "train without then, and after that run a task with several values, such as -m task=meta_sae meta.k=2,4"
    assert ran.err == f"error: then=[meta_sae]: {problem}. Fix: {fix}\n"


def test_an_sae_folder_without_a_slash_is_refused_with_the_fix(command):
    ran = command("task=meta_sae", "sae=elsewhere")
    assert ran.code == 1
    assert ran.err.endswith(""", or "sae='./elsewhere'" for an SAE in that folder\n""")


def test_an_unfinished_size_between_two_sizes_is_not_skipped_over(tmp_path):
    sweep = Sweep(tmp_path / "sweep")
    configs = {f"of-{size}": composed(f"dict_size={size}") for size in (32, 48, 64)}
    sweep.add(configs)
    for name in ("of-32", "of-64"):
        (sweep.folder / name).mkdir(exist_ok=True)
        (sweep.folder / name / "results.json").write_text(DONE_RESULTS)
    assert stitch.plan_studies(sweep, configs["of-32"]) == (
        [],
        "points without a trained SAE are skipped: of-48",
    )
