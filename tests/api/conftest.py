"""The stream of the tiny model's activations, and the sweep of the tests of tasks."""

import pytest

from sae_sweeps import ActivationStream, DatasetConfig

HOOK = "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module")
def stream(tiny_model, texts) -> ActivationStream:
    """Return the stream that the points of `tiny` train on."""
    dataset = DatasetConfig(format="text", files=f"{texts}/*.txt", seq_len=16, holdout_every=10)
    return ActivationStream.from_model(tiny_model, HOOK, dataset=dataset, chunk_size=300, device="cpu")
