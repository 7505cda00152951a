"""Command lines that are refused, each in one line."""

import os
import subprocess
import sys

import pytest

from sae_sweeps.cli.hydra_errors import _explain_unknown_setting
from sae_sweeps.runtime.places import PROJECT
from tests.conftest import launch


@pytest.mark.parametrize(
    ("words", "setting", "parts"),
    [
        (["k=0"], "k=0", ["greater than 0"]),
        (["k=9999"], "k=9999", ["dict_size=3072"]),
        (["dict_size=-1"], "dict_size=-1", ["greater than 0"]),
        (["dict_size=many"], "dict_size=many", ["Integer", "Fix: give dict_size a whole number"]),
        (["training.tokens=1.5"], "training.tokens=1.5", ["Integer"]),
        (["sae=unknown"], "sae=unknown", ["batchtopk, gated, jumprelu, matryoshka, relu, topk"]),
        (["sae.aux_latent=3"], "sae.aux_latent=3", ["sae.aux_latents"]),
        (
            ["sae=topk", "sae.target_l0=5"],
            "sae.target_l0=5",
            ["only with sae=jumprelu or sae=relu or sae=gated", "Fix: sae=jumprelu"],
        ),
        (["nonsense=3"], "nonsense=3", ["--help"]),
        (["hydra.launcher.partition=gpu"], "hydra.launcher.partition=gpu", ["only with hydra/launcher=slurm"]),
        (["k=[1"], "k=[1", ["cannot be parsed"]),
        (["model.hook=blocks.3.resid_pre"], "model.hook=blocks.3.resid_pre", ["blocks.3.hook_resid_pre"]),
        (["model.hook=blocks.77.hook_resid_pre"], "model.hook=blocks.77", ["layers 0 to 5"]),
        (["model.name=/no/such/folder"], "model.name=/no/such/folder", ["no such folder"]),
        (["model.name=nobody/nothing"], "model.name=nobody/nothing", ["hub cannot be reached"]),
        (["model=gpt2-small"], "model.name=gpt2", ["hub cannot be reached"]),
        (["dataset=openwebtext"], "dataset.name=Skylion007/openwebtext", ["hub cannot be reached"]),
        (["dataset=text", "dataset.files=nowhere/*.txt"], "dataset.files=nowhere/*.txt", ["matches no file"]),
        (["dataset=text", "dataset.files=short.txt"], "dataset.seq_len=128", ["shorter than one sequence"]),
        (["dataset=text", "dataset.files=short.txt", "-m", "k=8,16"], "dataset.seq_len=128", ["shorter"]),
        (["output_root=short.txt"], "output_root=short.txt", ["cannot be written"]),
        (["model.name="], "model.name=", ["must be a folder or a name"]),
        (["dataset=text", "dataset.files=3"], "dataset.files=3", ["matches no file"]),
        (["dataset=hub", "dataset.name="], "dataset.name=", ["must name a data set on the Hugging Face hub"]),
        (["sae=topk,batchtopk"], "sae=topk,batchtopk", ["add -m"]),
        (["-m", "name=a,b", "k=16,32"], "name=outputs/a, outputs/b", ["one sweep"]),
        (["device=abacus", "output_root=a/b"], "device=abacus", ["is not a known device"]),
        (["training.precision=half"], "training.precision=half", ["auto, float32, tf32, bfloat16"]),
        (["training.precision=tf32", "device=cpu"], "training.precision=tf32", ["needs a CUDA device"]),
        (["activations.cache=short.txt"], "activations.cache=short.txt", ["cannot be written"]),
        (["activations.cache_gib=0"], "activations.cache_gib=0", ["greater than 0"]),
        (["name=-x"], "name=-x", ["must not begin with -"]),
        (["name=a\nb"], r"name=a\nb", ["cannot be seen"]),
        (["name='a,b'"], "name=a,b", ["must not contain a comma"]),
        (["model.name=~nosuchuser/m"], "model.name=~nosuchuser/m", ["no user nosuchuser"]),
        (["output_root=$NO_SUCH/x"], "output_root=$NO_SUCH/x", ["NO_SUCH is not set"]),
        (["-m", "output_root=~nosuchuser", "k=8,16"], "output_root=~nosuchuser", ["no user nosuchuser"]),
        (["tracking.project=a/b"], "tracking.project=a/b", ["must not contain /"]),
        (["-m", "hydra/sweeper=ax"], "hydra/sweeper=ax", ["not installed", "pip install hydra-ax-sweeper"]),
        (["objective=nsme"], "objective=nsme", ["is no metric", "did you mean nmse"]),
        (["-m", "sae=topk,unknown"], "sae=unknown", ["batchtopk, gated, jumprelu, matryoshka, relu, topk"]),
    ],
)
def test_a_bad_setting_is_reported_in_one_line_without_a_traceback(tmp_path, words, setting, parts):
    (tmp_path / "short.txt").write_text("Too short a text. " * 20)
    done = launch(*words, cwd=tmp_path)
    message = [
        line
        for line in done.stderr.splitlines()
        if not line.endswith("points have invalid settings, so nothing was run")
    ]
    assert done.returncode == 1
    assert len(message) == 1, done.stderr
    assert message[0].startswith(f"error: {setting}")
    assert "Fix: " in message[0]
    assert all(part in message[0] for part in parts)
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["short.txt"]  # no folder is left


@pytest.mark.parametrize(
    ("typed", "fix"),
    {
        "lr=0.001": "training.lr=0.001",
        "sae.k=3": "k=3",
        "tokens=5": "training.tokens=5",
        "eval.tokens=5": "evaluation.tokens=5",
        "hook=a": "model.hook=a",
        "sae.aux_latent=3": "sae.aux_latents=3",
        "tracking.mod=off": "tracking.mode=off",
        "sea=topk": "sae=topk",
        "launcher=slurm": "hydra/launcher=slurm",
        "hydra.launcher.tme=3": "hydra.launcher.time=3",
        "learning_rate=1": "see python launch.py --help for a list of all settings",
    }.items(),
)
def test_a_wrong_name_is_compared_with_all_names_and_their_last_parts(typed, fix):
    setting, _, value = typed.partition("=")
    error = _explain_unknown_setting(setting, value)
    assert error.fix == fix
    assert ("similar names are" in error.problem) == ("--help" not in fix)


def test_a_sweep_over_architectures_accepts_a_setting_that_only_these_architectures_have(tmp_path):
    done = launch("-m", "task=plan", "sae=jumprelu,relu", "sae.target_l0=${k}", "k=16,32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "points  4\n" in done.stdout


def test_the_problems_of_all_points_are_reported_at_once(tmp_path):
    done = launch("-m", "k=0,32,9999", "dict_size=3072,-1", cwd=tmp_path)
    assert done.returncode == 1
    assert "5 of 6 points have invalid settings, so nothing was run" in done.stderr
    for problem in ("k=0:", "dict_size=-1:", "k=9999:"):
        assert done.stderr.count(f"error: {problem}") == 1


def test_an_error_is_reported_without_importing_a_slow_library(tmp_path):
    """Check that an error is reported quickly: no library is imported that takes seconds."""
    script = (
        "import sys, runpy; sys.argv = ['launch.py', 'k=0']\n"
        f"try: runpy.run_path({str(PROJECT / 'launch.py')!r}, run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'transformers', 'transformer_lens', 'datasets', 'wandb'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code - 1)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("word", "part"),
    [("max_points=0", "whole number from 1"), ("max_points=few", "whole number"), ("max_memory=-1", "GiB above 0")],
)
@pytest.mark.parametrize("several", [[], ["-m"]])
def test_an_impossible_limit_of_a_pack_is_refused(tmp_path, tiny, word, part, several):
    done = launch(*several, *tiny, f"hydra.launcher.{word}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: hydra.launcher.{word}: must be")
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1
