"""A pack of several hooks: one pass of the model, and each point the same to the byte as in a pack of its own hook."""

import json

import pytest

from sae_sweeps.activations import source as sources
from sae_sweeps.activations.hooked_model import HookedModel
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point
from sae_sweeps.sweep.packs import Limits, split_into_packs
from sae_sweeps.tasks import train
from tests.conftest import composed

HOOKS = ("blocks.1.hook_resid_pre", "blocks.0.hook_attn_out", "blocks.1.hook_resid_post")


@pytest.fixture(autouse=True)
def no_source(monkeypatch):
    """A model that an earlier test has loaded is not used."""
    monkeypatch.setattr(sources, "_latest", {})


def points_in(root, tiny, folder, *more):
    words = [*tiny, "training.checkpoint_every=5", *more]
    configs = [composed(*words, f"model.hook={hook}", f"sae={sae}") for hook in HOOKS for sae in ("topk", "jumprelu")]
    return [Point(config, root / folder / str(number)) for number, config in enumerate(configs)]


@pytest.fixture
def make_points(tmp_path, tiny):
    return lambda folder, *more: points_in(tmp_path, tiny, folder, *more)


def run(points):
    outcomes = {}
    train.run(points, Limits(), SweepProgress(len(points)), lambda point, error: outcomes.update({point.name: error}))
    return outcomes


def read_results(point):
    results = json.loads((point.folder / "results.json").read_text())
    results["training"].pop("seconds")
    results["training"].pop("tokens_per_second")
    saved = sorted((point.folder / "sae").iterdir())
    return (
        results["metrics"],
        results["sparsity"],
        results["training"],
        {file.name: file.read_bytes() for file in saved},
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny):
    """The results of each point, trained by itself."""
    points = points_in(tmp_path_factory.mktemp("alone"), tiny, "alone")
    for point in points:
        sources._latest.clear()
        assert run([point]) == {point.name: None}
    sources._latest.clear()
    return [read_results(point) for point in points]


def test_points_are_the_same_to_the_byte_as_alone(make_points, alone):
    points = make_points("together")
    assert split_into_packs(points) == [points]
    assert set(run(points).values()) == {None}
    assert [read_results(point) for point in points] == alone


def test_a_cache_and_another_order_change_nothing(make_points, alone, tmp_path):
    points = make_points("together", f"activations.cache={tmp_path / 'cache'}")
    for part in (points[2:4], points[::-1]):  # first one hook, which the others then find in the cache
        run(part)
    assert [read_results(point) for point in points] == alone


@pytest.mark.parametrize("stop_at", [9, 40])
def test_a_pack_that_is_stopped_resumes_to_the_same_bytes(make_points, alone, monkeypatch, stop_at):
    points, calls = make_points("stopped"), []

    def stop():
        calls.append(1)
        if len(calls) == stop_at:
            raise signals.Stopped("SIGUSR1")

    with monkeypatch.context() as patched:
        patched.setattr(signals, "raise_if_stopped", stop)
        with pytest.raises(signals.Stopped):
            run(points)
    assert set(run(points).values()) == {None}
    assert [read_results(point) for point in points] == alone


def test_the_model_runs_once_for_all_hooks(make_points, monkeypatch):
    passes, read = [], HookedModel.read

    def count(self, tokens_nS, takes):
        passes.append([*takes])
        read(self, tokens_nS, takes)

    monkeypatch.setattr(HookedModel, "read", count)
    run(make_points("counted"))
    together = [hooks for hooks in passes if len(hooks) > 1]
    assert together == [[*HOOKS]] * 8  # 2400 activations in chunks of 300, each in one batch of sequences


def test_a_hook_that_does_not_work_fails_its_points_alone(make_points, monkeypatch):
    require = HookedModel.require_hook

    def refuse(self, name, hook, trial):
        if hook == HOOKS[1]:
            raise ConfigError("model.hook", hook, "it does not work", "choose another hook")
        require(self, name, hook, trial)

    monkeypatch.setattr(HookedModel, "require_hook", refuse)
    outcomes = run(make_points("one"))
    assert [name for name, error in outcomes.items() if error is not None] == ["2", "3"]


def test_activations_that_overflow_fail_the_points_of_their_hook_alone(make_points, alone, monkeypatch):
    check = sources.require_finite

    def refuse(config, values, what):
        if config.hook == HOOKS[0] and "chunk 3" in what:
            raise ConfigError("model.dtype", "float16", f"the {what} are not finite", "another")
        check(config, values, what)

    monkeypatch.setattr(sources, "require_finite", refuse)
    points = make_points("overflow")
    outcomes = run(points)
    assert [name for name, error in outcomes.items() if error is not None] == ["0", "1"]
    assert [read_results(point) for point in points[2:]] == alone[2:]
