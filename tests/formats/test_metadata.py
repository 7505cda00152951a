"""The metadata of a point's SAE name no folder of the machine, and its own command still accepts the SAE."""

from dataclasses import replace
from pathlib import Path

import pytest

from sae_sweeps.activations.model_info import is_same_model, shared_name
from sae_sweeps.formats.description import Description
from sae_sweeps.formats.metadata import sae_metadata
from sae_sweeps.sweep.declared import require_match
from tests.conftest import composed

HUB = "/home/al/.cache/huggingface/hub/models--openai--gpt-x/snapshots/0123abcd"
SHARED = {
    "google/gemma-2-2b": "google/gemma-2-2b",
    "gpt2": "gpt2",
    "/home/al/models/gpt-x": "gpt-x",
    "/home/al/models/gpt-x/": "gpt-x",
    "~/models/gpt-x": "gpt-x",
    "../models/gpt-x": "gpt-x",
    ".": ".",
    HUB: "openai/gpt-x",
    f"{HUB}/": "openai/gpt-x",
}


@pytest.mark.parametrize("name", SHARED)
def test_a_model_is_named_without_the_folders_that_lead_to_it(name):
    assert shared_name(name) == SHARED[name]
    assert is_same_model(SHARED[name], [name])


def test_the_text_is_named_without_the_folders_that_lead_to_it():
    config = composed("dataset=text", "dataset.files=[/home/al/x/texts/*.txt,here/a.txt]")
    assert sae_metadata(config)["dataset_path"] == "texts/*.txt, here/a.txt"
    named = replace(config, dataset=replace(config.dataset, files=None, name="owner/texts"))
    assert sae_metadata(named)["dataset_path"] == "owner/texts"
    local = replace(config, dataset=replace(config.dataset, files=None, name="/home/al/x/texts"))
    assert sae_metadata(local)["dataset_path"] == "x/texts"


@pytest.mark.parametrize("earlier", [False, True])
def test_the_command_that_trained_an_sae_accepts_it(tmp_path, earlier):
    model = tmp_path / "models" / "mine"
    command = composed(f"model.name={model}")
    name = str(model) if earlier else sae_metadata(command)["model_name"]  # earlier versions wrote the whole path
    require_match("saved", str(Path("copy")), Description("topk", None, 24, 3, name, command.model.hook), command)
