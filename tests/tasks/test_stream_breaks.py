"""A text or a language model that fails in a training: all points are saved and resume to the same bytes."""

import json

import datasets
import pytest
import torch

from sae_sweeps.activations import reopening, source
from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.runtime import signals
from sae_sweeps.sweep import Point, Sweep, point_state
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks.run_packs import run_packs
from sae_sweeps.training import checkpoints
from tests.conftest import composed, sentence

NAMES = ("k3", "k4", "k5")
ROW = 90  # a row in the middle of the training
HELD_OUT_READINGS = 2  # the second because positions without text are left out of the first


@pytest.fixture(autouse=True)
def new_source(monkeypatch):
    """Points load the model and the text again, as in another process."""
    monkeypatch.setattr(source, "_latest", {})


class Texts:
    """A streamed data set of 300 rows, whose reading for the training fails at `row` as often as `errors` lists."""

    def __init__(self, monkeypatch):
        self.errors, self.row, self.readings = [], ROW, 0
        monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: self.read())

    def read(self):
        self.readings += 1
        for index in range(300):
            if index == self.row and self.readings > HELD_OUT_READINGS and self.errors:
                raise self.errors.pop(0)
            yield {"text": sentence(index, words=6)}


@pytest.fixture
def rows(monkeypatch):
    return Texts(monkeypatch)


@pytest.fixture
def waits(monkeypatch):
    """Waits take no time; the list has their seconds."""
    seconds = []
    monkeypatch.setattr(reopening, "pause", seconds.append)
    return seconds


def sweep_in(folder, tiny, *more) -> tuple[Sweep, list[Point]]:
    settings = [word for word in tiny if not word.startswith(("dataset=", "dataset.files"))]
    settings += [
        "dataset=hub",
        "dataset.name=the/set",
        "dataset.streaming=true",
        "training.checkpoint_every=1000",
        *more,
    ]
    sweep = Sweep(folder / "sweep")
    points = [Point(composed(*settings, f"k={name[1:]}"), sweep.folder / name) for name in NAMES]
    sweep.add({point.name: point.config for point in points})
    return sweep, points


def weights(points) -> list[bytes]:
    return [(point.folder / "sae" / "sae_weights.safetensors").read_bytes() for point in points]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny) -> list[bytes]:
    """The weights of the points when nothing fails."""
    with pytest.MonkeyPatch.context() as patch:
        Texts(patch)
        patch.setattr(source, "_latest", {})
        sweep, points = sweep_in(tmp_path_factory.mktemp("undisturbed"), tiny)
        assert run_packs(sweep, points, Limits()) == {}
    return weights(points)


def steps_saved(points) -> set[int]:
    return {checkpoints.newest_step(point.folder / "checkpoint") for point in points}


def require_saved(points, failures, reason) -> None:
    """Assert that all points failed for one reason, after at least a chunk, and that no step was lost."""
    assert set(failures) == set(NAMES)
    assert len(set(failures.values())) == 1
    assert reason in failures["k3"]
    (step,) = steps_saved(points)
    assert step > 0
    for point in points:
        state = point_state.read_state(point.folder)
        assert (state.state, state.reason, state.step) == ("failed", failures[point.name], step)
        assert not point_state.is_locked(point.folder)


def test_a_network_that_comes_back_costs_nothing_but_the_wait(tmp_path, tiny, rows, waits, undisturbed):
    rows.errors = [ConnectionError("Server Disconnected"), TimeoutError("The read operation timed out")]
    sweep, points = sweep_in(tmp_path, tiny)
    assert run_packs(sweep, points, Limits()) == {}
    assert waits == [1, 1]
    assert weights(points) == undisturbed


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (
            [ConnectionError("no route")] * 3,
            f"row {ROW} of the/set: ConnectionError: no route. It was waited for 2 s. Fix",
        ),
        ([ValueError("not UTF-8")], f"row {ROW} of the/set: ValueError: not UTF-8. Fix: make the row readable"),
        ([RuntimeError("CAS service error")], f"row {ROW} of the/set: RuntimeError: CAS service error. Fix"),
        ([KeyError("text")], f"row {ROW} of the/set: KeyError: 'text'. Fix"),
    ],
)
def test_a_text_that_stays_broken_fails_the_pack_after_saving_it(
    tmp_path, tiny, rows, waits, undisturbed, errors, reason
):
    rows.errors = errors
    sweep, points = sweep_in(tmp_path, tiny, "dataset.retry_seconds=2")
    require_saved(points, run_packs(sweep, points, Limits()), f"the text broke off at {reason}")
    assert run_packs(sweep, points, Limits()) == {}
    assert weights(points) == undisturbed


def test_a_late_row_that_holds_no_text_is_one_error_after_saving(tmp_path, tiny, undisturbed, monkeypatch):
    readings = 0

    def read():
        nonlocal readings
        readings += 1
        for index in range(300):
            yield {"text": 5 if index == ROW and readings == HELD_OUT_READINGS + 1 else sentence(index, words=6)}

    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: read())
    sweep, points = sweep_in(tmp_path, tiny)
    reason = f"dataset.text_column=text: the/set, row {ROW} holds a number"
    require_saved(points, run_packs(sweep, points, Limits()), reason)
    assert run_packs(sweep, points, Limits()) == {}
    assert weights(points) == undisturbed


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "ran out of memory in chunk"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Fix: lower model.batch_sequences"),
        (IndexError("index out of range in self"), "IndexError: index out of range in self"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "illegal memory access"),
    ],
)
def test_a_language_model_that_fails_late_fails_the_pack_after_saving_it(
    tmp_path, tiny, rows, undisturbed, monkeypatch, error, reason
):
    activations_at, calls = LanguageModel.activations_at, 0

    def broken(self, tokens_NS, hooks, on_progress=None):
        nonlocal calls
        calls += on_progress is not None  # a chunk of the training
        if calls == 3:
            raise error
        return activations_at(self, tokens_NS, hooks, on_progress)

    sweep, points = sweep_in(tmp_path, tiny)
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "activations_at", broken)
        require_saved(points, run_packs(sweep, points, Limits()), reason)
    assert steps_saved(points) == {10}  # two chunks of five steps
    assert run_packs(sweep, points, Limits()) == {}
    assert weights(points) == undisturbed


@pytest.mark.parametrize("stop", [signals.Stopped("SIGTERM"), KeyboardInterrupt()])
def test_a_stop_during_the_wait_saves_all_points(tmp_path, tiny, rows, undisturbed, monkeypatch, stop):
    def pause(seconds):
        raise stop

    rows.errors = [ConnectionError("no route")]
    sweep, points = sweep_in(tmp_path, tiny)
    with monkeypatch.context() as patch:
        patch.setattr(reopening, "pause", pause)
        with pytest.raises(type(stop)):
            run_packs(sweep, points, Limits())
    (step,) = steps_saved(points)
    assert step > 0
    assert {point_state.read_state(point.folder).state for point in points} == {"interrupted"}
    assert run_packs(sweep, points, Limits()) == {}
    assert weights(points) == undisturbed


def test_a_text_that_breaks_off_before_the_training_is_waited_for_once(tmp_path, tiny, rows, waits, undisturbed):
    rows.readings, rows.row, rows.errors = 1, 0, [ConnectionError("no route")] * 3
    sweep, points = sweep_in(tmp_path, tiny, "dataset.retry_seconds=2")
    failures = run_packs(sweep, points, Limits())
    assert waits == [1, 1]
    reason = (
        "the text the/set cannot be opened: ConnectionError: no route. It was waited for 2 s. Fix: check the network"
    )
    assert all(failure.startswith(reason) for failure in failures.values())
    assert set(failures) == set(NAMES)
    assert run_packs(sweep, points, Limits()) == {}
    assert weights(points) == undisturbed


def test_the_wait_is_not_a_part_of_the_result(tmp_path, tiny):
    from sae_sweeps.config.identity import select_stream_settings

    (_, one), (_, other) = (sweep_in(tmp_path / name, tiny, f"dataset.retry_seconds={name}") for name in ("1", "2"))
    assert json.dumps(select_stream_settings(one[0].config)) == json.dumps(select_stream_settings(other[0].config))
