"""Command-line arguments are rewritten for Hydra."""

import pytest

from sae_sweeps.cli.arguments import rewrite_arguments


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["k=16", "-m", "seed=0"], ["-m", "k=16", "seed=0"]),
        (["sae=topk"], ["sae=topk"]),
        (["sae=outputs/s/p"], ["saved=outputs/s/p"]),
        (["sae=sae_lens:x"], ["saved=sae_lens:x"]),
        (["-m", "sae=topk,relu", "sae.target_l0=20"], ["-m", "sae=topk,relu", "sae.target_l0=choice(20)"]),
        (["sae=relu", "sae.target_l0=20"], ["sae=relu", "sae.target_l0=20"]),
        (["-m", "sae=topk,relu", "sae.target_l0=20,30"], ["-m", "sae=topk,relu", "sae.target_l0=20,30"]),
        (["task=report", "name=a,b"], ["task=report", "name='a,b'"]),
        (["task=report", "name='a,b'"], ["task=report", "name='a,b'"]),
        (["-m", "name=a,b"], ["-m", "name=a,b"]),
        (["training.tokens=1e6"], ["training.tokens=1000000"]),
        (["-m", "seed=1e5,2.5e+5", "k=choice(1E1,3)"], ["-m", "seed=100000,250000", "k=choice(10,3)"]),
        (["training.tokens=1_0e1", "+limits.points=1e2"], ["training.tokens=100", "+limits.points=100"]),
        (["training.tokens=1.5", "seed=1.25e1", "k=1e999"], ["training.tokens=1.5", "seed=1.25e1", "k=1e999"]),
        (["training.lr=1e3", "name=1e3"], ["training.lr=1e3", "name='1e3'"]),
        (["hydra.launcher.max_points=1e1", "seed=-1e1"], ["hydra.launcher.max_points=10", "seed=-10"]),
    ],
)
def test_arguments_are_rewritten_for_hydra(arguments, expected):
    assert rewrite_arguments(arguments) == expected
