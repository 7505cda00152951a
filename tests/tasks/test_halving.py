"""Successive halving in a pack: which points continue, their exact states, memory, and packs that meet in files."""

import json

import pytest
from safetensors.numpy import load_file

from sae_sweeps.activations import source as sources
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.errors import TrainingError
from sae_sweeps.sweep import Point, point_state
from sae_sweeps.sweep.halving import list_rungs, read_rungs
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.sweep.sweep import Sweep
from sae_sweeps.tasks import halving, train
from sae_sweeps.tasks.pack import Waiting
from sae_sweeps.tasks.point import PointRun
from sae_sweeps.tasks.run_packs import run_packs
from tests.conftest import composed

RATES = (1e-4, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
HALVING = ("halving.enabled=true", "halving.first=32", "objective=nmse")
WORDS = ("training.tokens=256", "training.batch_size=8", "training.chunk_batches=4", "training.warmup_steps=0")


@pytest.fixture(autouse=True)
def no_source(monkeypatch):
    """A model that an earlier test has loaded is not used."""
    monkeypatch.setattr(sources, "_latest", {})


def points_in(root, tiny, folder, *more, rates=RATES):
    words = [*tiny, *WORDS, f"output_root={root}", f"name={folder}", "tracking=off", *more]
    return [Point(composed(*words, f"training.lr={rate}"), root / folder / f"lr{rate}") for rate in rates]


@pytest.fixture
def make_points(tmp_path, tiny):
    return lambda folder, *more, **options: points_in(tmp_path, tiny, folder, *more, **options)


def run(points, limits=None):
    """Run points with `run_packs`, and return their failures."""
    sweep = Sweep(points[0].folder.parent)
    sweep.add({point.name: point.config for point in points})
    return run_packs(sweep, points, limits or Limits())


def states(points):
    return [point_state.read_state(point.folder).state for point in points]


def weights(point):
    return (point.folder / "sae" / "sae_weights.safetensors").read_bytes()


def nmse(point):
    return json.loads((point.folder / "results.json").read_text())["metrics"]["nmse"]


def objectives(points):
    return [rungs.values if (rungs := read_rungs(point.folder)) else {} for point in points]


@pytest.fixture(scope="module")
def full(tmp_path_factory, tiny):
    """All points, trained to their ends without halving."""
    points = points_in(tmp_path_factory.mktemp("without"), tiny, "full")
    assert run(points) == {}
    return points


@pytest.fixture(scope="module")
def halved(tmp_path_factory, tiny):
    """All points, trained with halving."""
    points = points_in(tmp_path_factory.mktemp("with"), tiny, "halved", *HALVING)
    assert run(points) == {}
    return points


def test_half_of_the_points_end_at_each_rung_by_the_objective_there(halved, full):
    points = halved
    assert list_rungs(points[0].config) == [32, 64, 128]
    found = objectives(points)
    alive = list(points)
    for rung, count in ((32, 3), (64, 2), (128, 1)):
        at_rung = [values[rung] for values in found if rung in values]
        assert len(at_rung) == len(alive)
        alive = sorted(alive, key=lambda point: found[points.index(point)][rung])[:count]
        assert {point.name for point, values in zip(points, found, strict=True) if max(values) > rung} <= {
            point.name for point in alive
        }
    assert states(points).count("done") == 1
    assert states(points).count("pruned") == 5
    (winner,) = [point for point in points if point_state.is_done(point.folder)]
    assert winner in alive
    assert weights(winner) == weights(full[points.index(winner)])


def test_the_objective_at_a_rung_is_that_of_training_stopped_there(make_points, halved):
    stopped = make_points("stopped", "training.tokens=64", "training.decay_fraction=0", rates=RATES[2:3])
    run(stopped)
    assert objectives(halved)[2][64] == nmse(stopped[0])


def test_a_pruned_point_that_continues_equals_one_that_was_never_stopped(make_points, full):
    run(make_points("halved", *HALVING))
    points = make_points("halved")  # without halving, the same points
    assert run(points) == {}
    assert states(points) == ["done"] * len(points)
    assert [weights(point) for point in points] == [weights(point) for point in full]
    for point, other in zip(points, full, strict=True):
        curves = [(one.folder / "metrics.jsonl").read_text().splitlines() for one in (point, other)]
        values = [
            [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "crc32")} for line in lines]
            for lines in curves
        ]
        assert values[0] == values[1]


def test_the_same_command_again_trains_nothing(make_points, monkeypatch):
    points = make_points("halved", *HALVING)
    run(points)
    before = states(points)
    monkeypatch.setattr(train, "_train_in_parts", lambda *_: pytest.fail("there is nothing to train"))
    assert run(points) == {}
    assert states(points) == before


def test_packs_meet_through_their_files_and_a_pruned_point_continues_after_all(make_points, full):
    """Two good points in a pack of their own are compared first; in the second pack there are only worse ones."""
    order = sorted(range(len(RATES)), key=lambda at: nmse(full[at]))
    rates = [RATES[at] for at in order]
    points = make_points("halved", *HALVING, "training.decay_fraction=0", rates=rates)
    first, second = points[:2], points[2:]
    run(first)
    assert sorted(states(first)) == ["done", "pruned"]
    run(second)
    assert "done" not in states(second)[1:]
    pruned = next(point for point in first if not point_state.is_done(point.folder))
    run(first)
    assert max(objectives([pruned])[0]) > 32, "the second of six is among the best half"


def test_memory_of_pruned_points_goes_to_waiting_ones(make_points, monkeypatch):
    points = make_points("halved", *HALVING)
    open_at_once, opened = [], []
    original = PointRun.__init__

    def note(self, point, *rest):
        original(self, point, *rest)
        opened.append(self)
        open_at_once.append(sum(one.is_open for one in opened))

    monkeypatch.setattr(PointRun, "__init__", note)
    monkeypatch.setattr(train, "split_to_fit", lambda pack, *_: [pack[at : at + 2] for at in range(0, len(pack), 2)])
    monkeypatch.setattr(Waiting, "_fits", lambda self, points, more: len(points) <= 2)
    packs, train_pack = [], train._train_pack
    monkeypatch.setattr(train, "_train_pack", lambda *args: packs.append(len(opened)) or train_pack(*args))
    assert run(points) == {}
    assert [*packs, len(opened)][1] > 2, "points begin beside others, once one is pruned"
    assert max(open_at_once) == 2
    assert set(states(points)) == {"done", "pruned"}


@pytest.mark.parametrize("stop_at", [3, 9, 12, 15])
def test_a_pack_that_is_stopped_resumes_to_the_same_end(make_points, halved, monkeypatch, stop_at):
    points, calls = make_points("stopped", *HALVING), []
    original = PointRun.train

    def stop(self, steps):
        calls.append(1)
        original(self, steps)
        if len(calls) == stop_at:
            raise signals.Stopped("SIGUSR1")

    monkeypatch.setattr(PointRun, "train", stop)
    with pytest.raises(signals.Stopped):
        run(points)
    assert run(points) == {}
    assert states(points) == states(halved)
    assert objectives(points) == objectives(halved)
    ended = [at for at, state in enumerate(states(points)) if state == "done"]
    assert [weights(points[at]) for at in ended] == [weights(halved[at]) for at in ended]


def test_a_point_that_fails_at_a_rung_is_not_waited_for(make_points, monkeypatch):
    points = make_points("halved", *HALVING)
    original = PointRun.measure

    def fail(self, *args):
        if self.point.name == points[3].name:
            raise TrainingError("no")
        return original(self, *args)

    monkeypatch.setattr(PointRun, "measure", fail)
    assert list(run(points)) == [points[3].name]
    assert states(points)[3] == "failed"
    assert "done" in states(points)


def test_brackets_are_apart(make_points):
    words = ("seed=0", "seed=1")
    points = [
        Point(point.config, point.folder.with_name(f"{point.name}-{word}"))
        for word in words
        for point in make_points("halved", *HALVING, word, rates=RATES[:3])
    ]
    run(points)
    assert states(points[:3]).count("done") == states(points[3:]).count("done") == 1


def test_a_metric_of_predictions_takes_the_model(make_points):
    points = make_points("halved", *HALVING[:2], "objective=ce_degradation", rates=RATES[:2])
    run(points)
    (winner,) = [point for point in points if point_state.is_done(point.folder)]
    loser = next(point for point in points if point is not winner)
    assert objectives([winner])[0][32] < objectives([loser])[0][32]


def test_a_checkpoint_of_a_pruned_point_is_of_its_last_rung(halved):
    for point in halved:
        if point_state.read_state(point.folder).state == "pruned":
            newest = sorted((point.folder / "checkpoint").iterdir())[-1]
            steps = int(load_file(newest / "state.safetensors")["steps_done"])
            assert steps * 8 == max(objectives([point])[0])
            assert point_state.read_state(point.folder).reason.endswith(f"by nmse at {steps * 8} activations")


def test_points_without_halving_write_no_rungs(full):
    assert objectives(full) == [{}] * len(full)
    assert halving.list_rungs is list_rungs
