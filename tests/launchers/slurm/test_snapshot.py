"""The snapshot of the code that jobs run: a folder named by its content."""

import json
import subprocess
import sys

import pytest

from sae_sweeps.launchers.slurm import snapshot as module
from sae_sweeps.launchers.slurm.snapshot import copy_code
from sae_sweeps.runtime import provenance
from sae_sweeps.runtime.places import PROJECT

COMMIT = {"commit": "0123456789abcdef", "uncommitted_changes": True}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small package in place of this one, at a made-up commit."""
    package = tmp_path / "project" / "sae_sweeps"
    (package / "tasks").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tasks" / "train.py").write_text("first = 1\n")
    (package / "notes.txt").write_text("no code\n")
    monkeypatch.setattr(module, "CODE", package.parent)
    monkeypatch.setattr(provenance, "commit", lambda: COMMIT)
    return package


def test_the_same_code_is_copied_once(project, tmp_path):
    first = copy_code(tmp_path / "slurm")
    written = (first / "sae_sweeps" / "tasks" / "train.py").stat().st_mtime_ns
    (project / "notes.txt").write_text("still no code\n")
    assert copy_code(tmp_path / "slurm") == first
    assert (first / "sae_sweeps" / "tasks" / "train.py").stat().st_mtime_ns == written
    assert [entry.name for entry in (tmp_path / "slurm").iterdir()] == [first.name]
    files = sorted(str(file.relative_to(first)) for file in first.rglob("*") if file.is_file())
    assert files == ["provenance.json", "sae_sweeps/__init__.py", "sae_sweeps/tasks/train.py"]


@pytest.mark.parametrize("change", ["edit", "add", "rename", "commit"])
def test_changed_code_gets_another_folder_and_the_first_is_unchanged(project, tmp_path, monkeypatch, change):
    first = copy_code(tmp_path / "slurm")
    train = project / "tasks" / "train.py"
    if change == "edit":
        train.write_text("first = 2\n")
    elif change == "add":
        (project / "new.py").write_text("")
    elif change == "rename":
        train.rename(project / "tasks" / "training.py")
    else:
        monkeypatch.setattr(provenance, "commit", lambda: {**COMMIT, "commit": "fedcba9876543210"})
    second = copy_code(tmp_path / "slurm")
    assert second != first
    assert (first / "sae_sweeps" / "tasks" / "train.py").read_text() == "first = 1\n"
    assert json.loads((first / "provenance.json").read_text()).items() >= COMMIT.items()


def test_a_partial_copy_of_a_killed_command_is_not_used(project, tmp_path, monkeypatch):
    def interrupted(path, value, owner):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            copy_code(tmp_path / "slurm")
    assert not list((tmp_path / "slurm").glob("code-*"))
    assert (copy_code(tmp_path / "slurm") / "provenance.json").exists()


def test_a_process_in_the_snapshot_runs_its_code_and_reads_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "commit", lambda: COMMIT)
    code = copy_code(tmp_path)
    script = (
        "import json, sae_sweeps, sae_sweeps.launchers.slurm.node\n"
        "from sae_sweeps.runtime import provenance\n"
        "print(json.dumps([sae_sweeps.__file__, sae_sweeps.launchers.slurm.node.__file__, provenance.commit()]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=code, capture_output=True, text=True, timeout=60)
    package, node, commit = json.loads(done.stdout)
    assert package == str(code / "sae_sweeps" / "__init__.py")
    assert node == str(code / "sae_sweeps" / "launchers" / "slurm" / "node.py")
    assert commit == COMMIT


def test_the_commit_of_this_code_is_that_of_its_work_tree():
    if not (PROJECT / ".git").exists():
        pytest.skip("not in a work tree")
    head = subprocess.run(["git", "-C", PROJECT, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert provenance.commit()["commit"] == head
