"""Temporary files of killed processes are removed, and those that a process may still write stay."""

import os
import subprocess
import sys
import time

import pytest

from sae_sweeps.runtime import leftovers
from sae_sweeps.runtime.files import write_json
from sae_sweeps.runtime.leftovers import ABANDONED, MACHINE, remove_leftovers, temporary_path
from sae_sweeps.runtime.places import PROJECT

DEAD = 2**22 + 1  # more than Linux gives
OTHER = "0" * 8 if MACHINE != "0" * 8 else "1" * 8
OLD_NAMES = (".results.json.123.tmp", ".x.123.mode", ".partial-123", ".code-123", ".x.123.partial", ".tmpZ90xK0")


@pytest.fixture
def made(tmp_path):
    """A function that makes files, and says which are left."""
    paths = []

    def make(*names, seconds_ago=0.0):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("half")
            os.utime(path, (time.time() - seconds_ago,) * 2)
            paths.append(path)

    make.left = lambda: [path.name for path in paths if path.exists()]
    return make


def name_of(pid, machine=MACHINE):
    return f".results.json.{machine}-{pid}.tmp"


def test_what_a_dead_process_of_this_machine_left_is_removed_at_once(tmp_path, made):
    made(name_of(DEAD), f"point/checkpoint/.step-00000007.{MACHINE}-{DEAD}.tmp/state.safetensors", "point/results.json")
    remove_leftovers(tmp_path)
    assert made.left() == ["results.json"]
    assert sorted(path.name for path in (tmp_path / "point").iterdir()) == ["checkpoint", "results.json"]
    assert not list((tmp_path / "point" / "checkpoint").iterdir())


def test_what_a_killed_process_writes_has_such_a_name(tmp_path):
    script = (
        "import os, signal\nfrom pathlib import Path\nfrom sae_sweeps.runtime.files import write_atomically\n"
        f"with write_atomically(Path(r'{tmp_path}') / 'results.json') as partial:\n"
        "    partial.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=PROJECT, timeout=60).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_may_still_be_written_stays(tmp_path, made):
    kept = [name_of(os.getpid()), name_of(1), name_of(DEAD, OTHER), *OLD_NAMES, f"wandb/{name_of(DEAD)}"]
    made(*kept, "notes.tmp", ".hidden", ".lock")
    remove_leftovers(tmp_path)
    assert len(made.left()) == len(kept) + 3


def test_after_a_day_nothing_is_written_any_more(tmp_path, made):
    made(name_of(os.getpid()), name_of(DEAD, OTHER), *OLD_NAMES, seconds_ago=ABANDONED + 60)
    made("notes.tmp", ".hidden", ".lock", seconds_ago=ABANDONED + 60)
    remove_leftovers(tmp_path)
    assert made.left() == ["notes.tmp", ".hidden", ".lock"]


def test_in_a_locked_folder_all_is_left(tmp_path, made):
    made(name_of(os.getpid()), name_of(DEAD, OTHER), *OLD_NAMES, "results.json")
    remove_leftovers(tmp_path, is_locked=True)
    assert made.left() == ["results.json"]


def test_only_one_level_of_a_shared_folder(tmp_path, made):
    made(name_of(DEAD), f"other/{name_of(DEAD)}")
    remove_leftovers(tmp_path, below=False)
    assert made.left() == [name_of(DEAD)]
    assert list(tmp_path.iterdir()) == [tmp_path / "other"]


def test_links_are_removed_and_not_followed(tmp_path, made):
    made("elsewhere/kept")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / name_of(DEAD)).symlink_to(tmp_path / "elsewhere")
    remove_leftovers(tmp_path / "sweep")
    assert made.left() == ["kept"]
    assert not list((tmp_path / "sweep").iterdir())


def test_a_folder_that_cannot_be_cleaned_is_no_error(tmp_path, made, monkeypatch):
    made(name_of(DEAD))
    monkeypatch.setattr(leftovers.Path, "unlink", lambda self: (_ for _ in ()).throw(PermissionError(13, "no")))
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "nowhere")
    assert made.left() == [name_of(DEAD)]


def test_a_temporary_path_is_beside_the_file_and_removed_by_no_own_command(tmp_path):
    partial = temporary_path(tmp_path / "results.json")
    partial.touch()
    remove_leftovers(tmp_path)
    assert partial.exists()
    write_json(tmp_path / "results.json", {})
    assert not partial.exists()
