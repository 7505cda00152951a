"""Names that are long, cannot be seen or lead elsewhere: they work, or are refused before anything is written."""

import itertools
import json
import shutil

import pytest

from sae_sweeps.activations.model_files import check_model_files
from sae_sweeps.formats.reading import locate
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import Sweep
from tests.commands import rewrite_results
from tests.conftest import GIVEN
from tests.tasks.conftest import contents, done, point
from tests.tasks.foreign import foreign, saved

LONGEST = 255  # bytes in the name of a folder


@pytest.mark.parametrize(("words", "value"), [(["-m"], "a\nb"), ([], "a\u202eb"), ([], "a\u3164b")])
@pytest.mark.parametrize("launcher", ["pack", "slurm"])
def test_every_launcher_refuses_a_name_with_hidden_characters(command, tmp_path, slurm, launcher, words, value):
    slurm.submits()
    before = contents(tmp_path)
    ran = command(*words, f"name='{value}'", f"hydra/launcher={launcher}", "tracking=off")
    assert ran.code == 1
    assert f"must not contain {value[1]!a}, which cannot be seen. Fix: name=my-sweep" in ran.err
    assert {name for name in contents(tmp_path) if not name.endswith(".calls")} == before.keys()


@pytest.mark.parametrize("words", [[], ["-m"]])
def test_an_output_root_with_control_characters_is_refused_without_a_folder(command, tmp_path, words):
    ran = command(*words, "output_root='x\ny'", "tracking=off")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: output_root=x\\ny: must not contain '\\n', a control character. Fix: ")
    assert not (tmp_path / "x\ny").exists()


def test_the_longest_names_work_in_everything_that_is_derived_from_them(command, tmp_path, tiny, tiny_model):
    name = "\u00e9" * (LONGEST // 2) + "x"
    given = [*tiny, *[word for word in GIVEN if not word.startswith("name=")], f"name={name}"]
    ran = command(*given, "then=[report]")
    assert ran.code == 0, ran.err
    sweep = tmp_path / "outputs" / name
    assert (sweep / "report.html").exists()
    folder = saved("sae_lens", tmp_path / ("y" * LONGEST), foreign("topk"), str(tiny_model))
    settings = [word for word in given if word.startswith(("model", "dataset", "tracking", "name", "evaluation"))]
    ran = command("task=evaluate", *settings, f"sae={folder}")
    assert ran.code == 0, ran.err
    (study,) = done(sweep, "evaluate")
    assert len(study.name) == LONGEST
    for format in ("sae_lens", "sparsify"):
        ran = command("task=export", f"name={name}", f"sae={folder}", f"format={format}", "tracking=off")
        assert ran.code == 0, ran.err
        (exported,) = (sweep / "export" / format).iterdir()
        assert len(exported.name) == LONGEST


def test_a_name_that_is_too_long_is_refused_with_its_length(command, tmp_path):
    ran = command("name=" + "\u00e9" * 128, "tracking=off")
    assert ran.code == 1
    assert "must be at most 255 bytes long, as any folder's name, but has 256" in ran.err
    assert not list(tmp_path.iterdir())


def test_a_folder_whose_name_cannot_be_seen_names_no_study(command, tmp_path, tiny_model, model_settings):
    folder = saved("sae_lens", tmp_path / "a\u200bb" / "sae", foreign("topk"), str(tiny_model)).parent
    before = contents(tmp_path)
    for task in ("evaluate", "export"):
        ran = command(f"task={task}", *model_settings, "name=h", "tracking=off", f"sae={folder}")
        assert (ran.code, ran.out) == (1, "")
        assert "the name of the folder must not contain '\\u200b', which cannot be seen. Fix: rename" in ran.err
    assert contents(tmp_path) == before


HOSTILE = {
    "architecture": ({"architecture": "../../../../escaped"}, "the architecture in cfg.json must be one of"),
    "hook": ({"hook_name": "../../../../escaped"}, "names no hook and no module"),
    "absolute hook": ({"hook_name": "/tmp/escaped/x"}, "names no hook and no module"),
    "hook of dots": ({"hook_name": ".."}, "names no hook and no module"),
    "origin": ({"sae_sweeps": {"architecture": "<img src=x>"}}, "sae_sweeps.architecture in cfg.json must be one of"),
    "other origin": ({"sae_sweeps": {"architecture": "gated"}}, "has the architecture topk, which no gated SAE has"),
    "list": ({"model_name": ["x"]}, "model_name in cfg.json must be text, but it is ['x']"),
    "metadata": ([1], "metadata in cfg.json must be a JSON object, but it is [1]"),
    "size": ({"context_size": 10**20}, "context_size in cfg.json must be at most 2147483647"),
    "depth": ({"deep": json.loads("[" * 80 + "]" * 80)}, "cfg.json has more than 50 objects and lists in each other"),
}
TASKS = ["evaluate", "latents", "export format=sparsify", "publish publish.repo=o/n publish.dry_run=true"]


@pytest.mark.parametrize(("name", "task"), list(zip(HOSTILE, itertools.cycle(TASKS), strict=False)))
def test_a_hostile_configuration_is_refused_in_one_line_and_leaves_nothing(
    command, tmp_path, tiny_model, model_settings, name, task
):
    folder = saved("sae_lens", tmp_path / "deep" / "mine", foreign("topk"), str(tiny_model))
    change, problem = HOSTILE[name]
    config = json.loads((folder / "cfg.json").read_text())
    if name in ("architecture", "metadata"):
        config |= change if name == "architecture" else {"metadata": change}
    else:
        config["metadata"] |= change
    (folder / "cfg.json").write_text(json.dumps(config))
    before = contents(tmp_path)
    words = [*model_settings, "name=h", f"output_root={tmp_path}/deep/outputs", "tracking=off", f"sae={folder}"]
    ran = command(*f"task={task}".split(), *words)
    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert line.startswith(f"error: saved={folder}: cannot be read as sae_lens (")
    assert problem in line
    assert contents(tmp_path) == before


def test_a_link_out_of_the_sweep_gets_no_results(first, command, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    title = "topk-48-k4-seed0"
    folder = first / "export" / "sae_lens"
    folder.mkdir(parents=True)
    (folder / title).symlink_to(elsewhere)
    ran = command("task=export", "name=first", "tracking=off")
    assert ran.code == 1
    assert "is a link, through which nothing is written" in ran.err
    assert not list(elsewhere.iterdir())


def test_a_point_from_elsewhere_chooses_no_cache(first, command, tmp_path, tiny):
    copy = shutil.copytree(point(first, "topk-48"), tmp_path / "given" / "topk-48-k4-seed0-01234567")
    cache = {"cache": str(tmp_path / "escaped")}
    rewrite_results(copy, lambda results: results["config"]["activations"].update(cache))
    ran = command("task=evaluate", *GIVEN, f"sae={copy}", "evaluation.tokens=100")
    assert ran.code == 0, ran.err
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("shard", ["../escaped.safetensors", "/etc/escaped.safetensors", "a\nb.safetensors"])
def test_an_index_of_weights_names_no_file_outside_the_folder(tmp_path, tiny_model, shard):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": shard}}))
    with pytest.raises(ConfigError, match=r"model\.safetensors\.index\.json names a file that is not in the folder: '"):
        check_model_files(str(folder))


@pytest.mark.parametrize("inside", ["../../x", "a/../../x", "a//b"])
def test_a_folder_of_the_hub_is_inside_its_repository(inside):
    with pytest.raises(FileNotFoundError, match="there is no such folder here, and owner/name has no such one: '"):
        locate(f"owner/name/{inside}")


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "..", ""])
def test_a_sweep_has_no_point_outside_its_folder(first, name):
    names = [point.name for point in Sweep(first).points()]
    Sweep(first).update(lambda known: known["points"].update({name: known["points"][names[0]]}))
    assert [point.name for point in Sweep(first).points()] == names  # rebuilt from the folders in it
