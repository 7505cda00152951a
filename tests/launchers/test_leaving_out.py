"""Combinations that a sweep leaves out: `leave_out`."""

import itertools
from collections import Counter

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from sae_sweeps.launchers.composition import compose
from sae_sweeps.launchers.leaving_out import leave_out
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.places import PROJECT
from tests.conftest import launch


def compose_sweep(*words: str, **values: list) -> list:
    """Return the points of a sweep over all combinations of `values`, as the launcher composes them."""
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN, validate_sweep_overrides=False)
        named = (
            [f"{name}={value}" for name, value in zip(values, row, strict=True)]
            for row in itertools.product(*values.values())
        )
        return compose(loader, master, [[*words, *one] for one in named], first=0)


def left(entries: str, *words: str, **values: list) -> list[tuple]:
    """Return the values of the points that are left."""
    kept = leave_out(compose_sweep(*words, f"leave_out={entries}", **values))
    return [tuple(config.hydra.overrides.task[-len(values) :]) for config in kept]


def test_a_point_that_has_a_value_of_every_setting_of_an_entry_is_left_out():
    values = {"k": [3, 4], "dict_size": [48, 96]}
    every = left("[]", **values)
    assert len(every) == 4
    assert left("[{k: 3}]", **values) == every[2:]
    assert left("[{k: 3, dict_size: 96}]", **values) == [every[0], *every[2:]]
    assert left("[{k: [3, 4], dict_size: 96}]", **values) == [every[0], every[2]]
    assert left("[{k: 3, dict_size: 96}, {k: 4, dict_size: 48}]", **values) == [every[0], every[3]]
    assert left("[{k: 5}]", **values) == every


def test_groups_and_settings_of_any_type_can_be_named():
    assert left("[{sae: topk, seed: 0}]", sae=["topk", "relu"], seed=[0, 1]) == [
        ("sae=topk", "seed=1"),
        ("sae=relu", "seed=0"),
        ("sae=relu", "seed=1"),
    ]
    rest = {"training.lr": ["1e-3", "2e-3"]}
    assert left("[{training.lr: 0.001}]", **rest) == [("training.lr=2e-3",)]
    assert left("[{training.betas: [[0.5, 0.9]]}]", **{"training.betas": ["[0.5,0.9]", "[0.9,0.99]"]}) == [
        ("training.betas=[0.9,0.99]",)
    ]
    assert len(left("[{sae.bandwidth: 0.001}]", sae=["topk", "jumprelu"])) == 1  # TopK has no bandwidth
    assert len(left("[{model: gpt2-small, training: quick}]", model=["gpt2-small", "embedded"])) == 1
    assert len(left("[{training.normalize_before_update: true}]", training=["quick", "paper"])) == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[{}]", "leave_out=[{}]: has an entry without settings"),
        (
            "[{dict_sise: 3}]",
            "leave_out=[{dict_sise:3}]: names dict_sise, which is neither a setting nor a group. Fix: did",
        ),
        (
            "[{hydra.launcher.max_points: 3}]",
            "leave_out=[{hydra.launcher.max_points:3}]: names hydra.launcher.max_points",
        ),
        (
            "[{k: [3, 4]}, {seed: 7}]",
            "leave_out=[{k:[3,4]},{seed:7}]: leaves nothing of this command's 2 combinations of values. "
            "Fix: give other values, or 'leave_out=[]'",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_error(entries, message):
    with pytest.raises(ConfigError) as error:
        left(entries, k=[3, 4])
    assert str(error.value).startswith(message)


SIZES, SPARSITIES, ARCHITECTURES = [3072, 6144, 12288, 24576], [16, 32, 64], ["batchtopk", "topk", "jumprelu"]


def test_the_sweep_on_gpt2_small_is_that_of_the_published_code():
    values = {"sae": ARCHITECTURES, "dict_size": SIZES, "k": SPARSITIES}
    kept = leave_out(compose_sweep("experiment=gpt2_small", **values))
    found = Counter((config.sae.architecture, config.dict_size, config.k) for config in kept)
    expected = {(sae, 12288, k) for sae in ARCHITECTURES for k in SPARSITIES}
    expected |= {(sae, size, 32) for sae in ("batchtopk", "topk") for size in (3072, 6144, 24576)}
    assert found == Counter(expected)
    assert len(kept) == 15
    every = compose_sweep("experiment=gpt2_small_all", **values)
    assert len(leave_out(every)) == len(every) == 36
    assert {config.name for config in every} == {"gpt2_small_all"}


def test_a_command_leaves_combinations_out_of_plan_and_sweep(tiny, tmp_path):
    words = ["-m", *tiny, "sae=topk", "k=3,4", "dict_size=48,96", "name=some"]
    some = "leave_out=[{k: [4], dict_size: 96}]"
    planned = launch(*words, some, "task=plan", cwd=tmp_path)
    assert planned.stdout.splitlines()[0] == "points  3 (1 combination left out)"
    done = launch(*words, some, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left out 1 of 4 combinations, as leave_out says" in done.stdout + done.stderr
    names = {entry.name for entry in (tmp_path / "outputs" / "some").glob("topk-*")}
    assert {name.rpartition("-")[0] for name in names} == {"topk-48-k3-seed0", "topk-96-k3-seed0", "topk-48-k4-seed0"}
    rest = launch(*words, cwd=tmp_path)  # the same points, so three are done
    assert rest.returncode == 0, rest.stderr
    assert {entry.name for entry in (tmp_path / "outputs" / "some").glob("topk-*")} > names
    assert len({*(tmp_path / "outputs" / "some").glob("topk-*")}) == 4
    nothing = launch(*words, "leave_out=[{seed: 0}]", cwd=tmp_path)
    assert nothing.returncode == 1
    assert nothing.stderr.startswith("error: leave_out=[{seed:0}]: leaves nothing of this command's 4 combinations")
