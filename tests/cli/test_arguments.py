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
    ],
)
def test_arguments_are_rewritten_for_hydra(arguments, expected):
    assert rewrite_arguments(arguments) == expected
