"""What cannot be studied is told in a line, with exit code 1, and leaves nothing behind."""

import json

import pytest

from sae_sweeps.runtime.provenance import PROJECT
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks import stitch
from tests.conftest import composed, launch
from tests.tasks.conftest import GIVEN, contents, point, undo

SOURCES = {"nowhere": None, "empty": {}, "foreign": {"d_sae": 48, "metadata": {"hook_name": "h"}}, "bare": {"d_in": 3}}


@pytest.fixture
def there(first, tmp_path):
    """Beside the sweep, folders that hold no SAE of this project; returns the words for two of its points."""
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
        (["task=stitch", "small={small}"], "small={small}: is given without large. Fix: give large=FOLDER as well"),
        (["task=stitch", "large={large}"], "large={large}: is given without small. Fix: give small=FOLDER as well"),
        (["task=stitch", "small=nowhere", "large={large}"], "small=nowhere: there is no such folder"),
        (["task=stitch", "small={small}", "large=empty"], "large=empty: holds no SAE (sae_lens: cfg.json and"),
        (["task=stitch", "small={small}", "large=foreign"], "large=foreign: cannot be read as sae_lens (cfg.json"),
        (["task=latents", "sae=./foreign"], "saved=./foreign: cannot be read as sae_lens (cfg.json does not say"),
        (["task=meta_sae", "sae=./bare"], "saved=./bare: cannot be read as sae_lens (cfg.json does not say"),
        (["task=latents", "sae={small}/nowhere"], "saved={small}/nowhere: there is no such folder"),
        (["task=stitch", "stitch.threshold=0"], "stitch.threshold=0.0: must be a cosine in (0, 1]"),
        (["task=stitch", "stitch.threshold=2"], "stitch.threshold=2.0: must be a cosine in (0, 1]"),
        (["task=meta_sae", "meta.k=0"], "meta.k=0: must be at least 1. Fix: meta.k=1"),
        (["-m", "task=meta_sae", "meta.k=2,0"], "meta.k=0: must be at least 1. Fix: meta.k=1"),
        (["task=meta_sae", "meta.dict_size=3"], "meta.k=4: is larger than meta.dict_size=3"),
        (["task=meta_sae", "name=furst"], "name=furst: there is no such sweep in outputs; there are first"),
        (["-m", "task=latents", "name=first,furst"], "name=outputs/first, outputs/furst: the points of one command"),
        (["-m", "task=status", "name=first,furst"], "name=outputs/first, outputs/furst: the points of one command"),
    ],
)
def test_what_is_wrong_with_a_command_is_one_line_and_nothing_is_left(there, command, tmp_path, words, line):
    before = contents(tmp_path)
    told = [word.format(**there) for word in words]
    ran = command(*[word for word in GIVEN if word.partition("=")[0] not in str(words)], *told)
    assert (ran.code, ran.out) == (1, "")
    (said,) = ran.err.splitlines()
    assert said.startswith(f"error: {line.format(**there)}")
    assert "Fix: " in said
    assert contents(tmp_path) == before


def test_the_command_that_a_user_gives_is_refused_in_a_line_too(there, tmp_path):
    before = contents(tmp_path)
    ran = launch("task=stitch", "name=first", "small=nowhere", f"large={there['large']}", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stdout == ""
    (said,) = ran.stderr.splitlines()
    assert said.startswith("error: small=nowhere: ")
    assert contents(tmp_path) == before


def test_a_task_that_cannot_follow_is_told_with_those_that_can(command, tiny, tmp_path):
    ran = command(*tiny, "then=[stich]")
    assert ran.code == 1
    assert ran.err.startswith("error: then=['stich']: there is no such task to follow: stich.")
    assert "stitch, meta_sae, latents, evaluate, report" in ran.err
    assert not list(tmp_path.glob("outputs/*/*"))


def test_more_meta_latents_than_directions_are_refused_when_these_are_known(first, command):
    undo(first, "meta_sae")
    ran = command("task=meta_sae", *GIVEN, "meta.dict_size=49", f"sae={point(first, 'topk-48')}")
    assert ran.code == 1
    (said,) = ran.err.splitlines()
    assert "meta.dict_size=49: there are only 46 decoder directions to learn from. Fix: meta.dict_size=11" in said
    assert "Traceback" not in ran.out
    assert not [
        name for name in contents(first / "meta_sae") if not name.endswith((".lock", "launch.log", "decomposed.json"))
    ]
    assert not (first / "meta_sae.csv").exists()


def test_a_sweep_without_neighbouring_sizes_is_nothing_to_stitch(first, command):
    sweep = json.loads((first / "sweep.json").read_text())
    sweep["points"] = {name: found for name, found in sweep["points"].items() if "-48-" in name}
    (first / "sweep.json").write_text(json.dumps(sweep))
    ran = command("task=stitch", *GIVEN)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "stitch: no two points of first differ in dict_size alone\n"


@pytest.mark.parametrize("task", ["meta_sae", "latents"])
def test_a_sweep_without_points_says_so(first, command, task):
    (first / "sweep.json").write_text("{}")
    ran = command(f"task={task}", *GIVEN)
    assert (ran.code, ran.out, ran.err) == (1, "", f"{task}: the sweep has no points\n")


def test_a_copy_that_is_of_another_hook_or_model_is_told(first, command, tmp_path, of_the_model):
    sae = point(first, "topk-48") / "sae"
    sae.rename(tmp_path / "copy")
    given = ["task=latents", *GIVEN, "sae=./copy"]
    ran = command(*given, *of_the_model, "model.hook=blocks.0.hook_resid_pre")
    assert ran.code == 1
    hook = "blocks.1.hook_resid_pre"
    problem = f"was trained at {hook}, and the command is about blocks.0.hook_resid_pre. Fix: model.hook={hook}"
    assert ran.err == f"error: saved=./copy: {problem}\n"
    model = json.loads((tmp_path / "copy" / "cfg.json").read_text())["metadata"]["model_name"]
    ran = command(*given, f"model.hook={hook}")
    problem = f"was trained on {model}, and the command is about {PROJECT}/embedded/model. Fix: model=..."
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: saved=./copy: {problem}, the one that it is of, or if they are the same, ")
    ran = command(*given, f"model.hook={hook}", f"model.aliases=[{model}]")
    problem = f"is of activations 16 wide, and those of {PROJECT}/embedded/model are 192 wide"
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: saved=./copy: {problem}. Fix: model=")


def test_stitching_saes_that_see_activations_unlike_each_other_is_refused(first, command):
    sae = point(first, "topk-48") / "sae"
    undo(first, "stitch")
    config = json.loads((sae / "cfg.json").read_text())
    (sae / "cfg.json").write_text(json.dumps(config | {"normalize_activations": "none"}))
    ran = command("task=stitch", *GIVEN, f"small={point(first, 'topk-32')}", f"large={sae}")
    assert ran.code == 1
    (said,) = ran.err.splitlines()
    assert "normalises activations by 'layer_norm'" in said
    assert "Fix: " in said


def test_settings_of_what_follows_cannot_differ_among_the_points(command, tiny):
    ran = command("-m", *tiny, "meta.k=2,3", "then=[meta_sae]")
    problem = "what follows has settings of its own, which differ among the points"
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"error: then=[meta_sae]: {problem}. Fix: train first; then, say, -m task=meta_sae meta.k=2,4\n"


def test_an_sae_without_a_slash_is_no_architecture_and_the_fix_says_so(command):
    ran = command("task=meta_sae", "sae=elsewhere")
    assert ran.code == 1
    assert ran.err.endswith(", or sae=./elsewhere for an SAE in that folder\n")


def test_sizes_are_not_paired_over_one_that_is_not_done(tmp_path):
    sweep = Sweep(tmp_path / "sweep")
    configs = {f"of-{size}": composed(f"dict_size={size}") for size in (32, 48, 64)}
    sweep.add(configs)
    for name in ("of-32", "of-64"):
        (sweep.folder / name).mkdir()
        (sweep.folder / name / "results.json").write_text("{}")
    assert stitch.plan_studies(sweep, configs["of-32"]) == ([], "not done: of-48")
