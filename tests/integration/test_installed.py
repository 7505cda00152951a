"""The wheel in an environment of its own, used outside the checkout: two commands from nothing to a finished sweep."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from sae_sweeps.runtime.places import PROJECT
from tests.slurm_cluster.cluster import Cluster, missing

pytestmark = pytest.mark.integration

TINY = [
    "dict_size=96",
    "k=4",
    "training.tokens=4096",
    "training.batch_size=512",
    "evaluation.tokens=512",
    "tracking=off",
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """An environment with the wheel. Its dependencies are those of this one, which lie behind it on Python's path."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder / "wheel"]
    subprocess.run([*wheel, PROJECT], check=True, cwd=folder)
    (built,) = (folder / "wheel").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    target = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", built]
    subprocess.run(install, check=True, cwd=folder)
    Path(target, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env"


@pytest.fixture
def run(environment, tmp_path):
    """A function that runs `sae-sweeps`, or another command of the environment, in a folder outside the checkout."""

    def run(*words: str, cwd: Path = tmp_path, **variables: str) -> subprocess.CompletedProcess[str]:
        inherited = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SAE_SWEEPS_COMMAND")
        }
        path = f"{environment}/bin{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            words,
            cwd=cwd,
            env={**inherited, "PATH": path, "HF_HUB_OFFLINE": "1", **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_the_environment_has_the_wheel_and_not_the_checkout(environment, run):
    where = run("python", "-c", "import sae_sweeps.cli.main as main; print(main.__file__, main.PROJECT)").stdout.split()
    assert all(place.startswith(str(environment)) for place in where)
    assert len(where) == 2


def test_a_sweep_its_status_and_its_report_in_any_folder(run, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    trained = run("sae-sweeps", "-m", "sae=topk,jumprelu", *TINY, "name=first", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert {entry.name for entry in folder.iterdir()} == {"outputs"}
    results = [json.loads(file.read_text()) for file in (folder / "outputs" / "first").glob("*/results.json")]
    assert [result["metrics"]["held_out_tokens"] >= 512 for result in results] == [True, True]
    assert all(result["provenance"]["packages"]["sae-sweeps"] for result in results)
    page = (folder / "outputs" / "first" / "report.html").read_text()
    assert "launch.py" not in page
    again = run("python", "-m", "sae_sweeps", "task=status", "name=first", cwd=folder)
    assert "2 points, 2 done" in again.stdout, again.stderr
    absent = run("sae-sweeps", "task=status", "name=absent", cwd=folder)
    assert absent.returncode == 1
    assert len(absent.stderr.splitlines()) == 1


def test_a_group_of_ones_own_is_added(run, tmp_path):
    mine = tmp_path / "mine" / "training"
    mine.mkdir(parents=True)
    (mine / "tiny.yaml").write_text("tokens: 4096\nbatch_size: 512\nlr: 0.002\n")
    planned = run("sae-sweeps", "--config-dir", "mine", "training=tiny", "task=plan", "k=4", "dict_size=96")
    assert planned.returncode == 0, planned.stderr
    assert "4,096" in planned.stdout
    shown = run("sae-sweeps", "--config-dir", "mine", "training=tiny", "--help")
    assert "training.lr=0.002" in shown.stdout


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_slurm_job_of_an_installed_package_trains(run, tmp_path, texts):
    with Cluster(tmp_path / "cluster", requeue_seconds=5) as cluster:
        text = ["dataset=text", f"dataset.files={texts}/*.txt"]
        words = ["sae=topk", *TINY, *text, "name=jobs", "hydra/launcher=slurm", "hydra.launcher.wait=true"]
        done = run("sae-sweeps", *words, SLURM_CONF=cluster.environment["SLURM_CONF"])
    assert done.returncode == 0, done.stdout + done.stderr
    (results,) = (tmp_path / "outputs" / "jobs").glob("*/results.json")
    assert json.loads(results.read_text())["metrics"]["l0"] == 4
