"""A folder that is moved, replaced or deleted while it is held gets no more files."""

import logging
import shutil
from contextlib import ExitStack

import pytest
from filelock import FileLock

from sae_sweeps.runtime import held
from sae_sweeps.runtime.files import write_json
from sae_sweeps.runtime.held import LostFolderError, LostSweep, holding_sweep, require_held
from sae_sweeps.runtime.logs import log_file
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.training import checkpoints
from sae_sweeps.training.curve import CurveFile


def move(folder):
    folder.rename(folder.with_name("moved"))


def replace(folder):
    move(folder)
    folder.mkdir()


def copy(folder):
    move(folder)
    shutil.copytree(folder.with_name("moved"), folder)


def names(folder):
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else None


@pytest.fixture
def lock(tmp_path):
    lock = FileLock(tmp_path / "sweep" / "point" / point_state.LOCK)
    assert point_state.acquire(lock, 0.0)
    yield lock
    point_state.release(lock)
    assert not held._held


@pytest.mark.parametrize("lose", [move, replace, copy, shutil.rmtree])
def test_nothing_is_written_into_a_point_that_is_not_there_any_more(tmp_path, lock, lose):
    point = tmp_path / "sweep" / "point"
    curve = CurveFile(point / "metrics.jsonl", 0)
    write_json(point / "state.json", {})
    lose(point)
    before = names(point)
    for write in (
        lambda: write_json(point / "results.json", {}),
        lambda: checkpoints.save(point / "checkpoint", 1, {}, point.name),
        lambda: curve.append({"step": 1}),
        lambda: point_state.write_state_if_unlocked(point, point_state.FAILED, "it broke"),
    ):
        with pytest.raises(
            LostFolderError, match=r"was (moved or deleted|replaced by another one) while it was in use"
        ):
            write()
    assert names(point) == before
    write_json(tmp_path / "sweep" / "other" / "results.json", {})  # other points continue


def test_a_folder_that_was_released_is_as_any_other(tmp_path, lock):
    point_state.release(lock)
    shutil.rmtree(tmp_path / "sweep" / "point")
    write_json(tmp_path / "sweep" / "point" / "state.json", {})


@pytest.mark.parametrize("lose", [move, replace, copy, shutil.rmtree])
@pytest.mark.parametrize("lost", ["outputs/sweep", "outputs"])
def test_no_half_empty_sweep_is_made_again(tmp_path, lose, lost):
    sweep = Sweep(tmp_path / "outputs" / "sweep")
    sweep.update(lambda content: None)
    with ExitStack() as holding:
        holding.enter_context(holding_sweep(sweep.folder))
        lose(tmp_path / lost)
        before = names(sweep.folder)
        for write in (lambda: sweep.set_state("point", "done"), lambda: write_json(sweep.folder / "a" / "b", {})):
            with pytest.raises(LostSweep):
                write()
        assert names(sweep.folder) == before
        with pytest.raises(LostSweep):
            holding.close()
    assert not held._held


def test_a_sweep_that_stays_is_written(tmp_path):
    with holding_sweep(tmp_path):
        write_json(tmp_path / "point" / "results.json", {})
        require_held(tmp_path)


@pytest.mark.parametrize("lose", [move, replace, copy, shutil.rmtree])
def test_a_log_is_written_only_where_it_was_begun(tmp_path, lose):
    point = tmp_path / "point"
    with log_file(point):
        logging.getLogger("test").warning("first")
        assert "first" in (point / "launch.log").read_text()
        lose(point)
        before = names(point)
        logging.getLogger("test").warning("second")
    assert names(point) == before
    assert not [file for file in tmp_path.rglob("launch.log") if "second" in file.read_text()]
