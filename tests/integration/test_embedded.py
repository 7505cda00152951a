"""The bits per byte of the embedded model, measured again from the shipped files."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedded.train import HERE, HOLDOUT_EVERY, TEXT, bits_per_byte
from sae_sweeps.activations.documents import read_split
from sae_sweeps.config import DatasetConfig

pytestmark = pytest.mark.long


def test_bits_per_byte_are_those_in_training_json():
    folder = HERE / "model"
    held_out = list(
        read_split(DatasetConfig(format="json", files=str(TEXT), holdout_every=HOLDOUT_EVERY), held_out=True)
    )
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    written = json.loads((folder / "training.json").read_text())
    assert len(held_out) == written["held_out_documents"]
    assert sum(len(text.encode()) for text in held_out) == written["held_out_bytes"]
    assert bits_per_byte(model, tokenizer, held_out) == pytest.approx(written["bits_per_byte"], abs=2e-3)
