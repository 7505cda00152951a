"""Task `export`: exported SAEs compute the same and name no local path."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.formats.reading import load_sae, locate
from tests.tasks.conftest import point
from tests.tasks.exported import TITLES, files, front_matter, require_no_local_paths
from tests.tasks.foreign import D, foreign, saved

FORMATS = ["sae_lens", "dictionary_learning", "sparsify", "saebench"]


def x_BD():
    return 2 * torch.randn(100, D, generator=torch.Generator().manual_seed(5)) + 0.3


def normalized(x_BD):
    mean_B1 = x_BD.mean(1, keepdim=True)
    std_B1 = x_BD.std(1, keepdim=True)
    return (x_BD - mean_B1) / (std_B1 + 1e-5), mean_B1, std_B1


@pytest.mark.parametrize("format", ["sae_lens", "saebench"])
def test_exported_points_compute_the_same(first, command, format, tiny_model, texts):
    ran = command("task=export", "name=first", f"format={format}")
    assert (ran.code, ran.err) == (0, "")
    root = first / "export" / format
    assert sorted(entry.name for entry in root.iterdir()) == TITLES
    for title in TITLES:
        folder = root / title
        assert files(folder) == {"README.md", "cfg.json", "sae_weights.safetensors"}
        assert f"written: {folder.relative_to(Path.cwd())}" in ran.out
        mine, again = load_sae(point(first, title)), load_sae(folder)
        assert again.architecture == mine.architecture
        assert_close(again(x_BD()), mine(x_BD()), rtol=1e-5, atol=1e-5)
        metadata = json.loads((folder / "cfg.json").read_text())["metadata"]
        assert (metadata["model_name"], metadata["hook_name"]) == (tiny_model.name, "blocks.1.hook_resid_pre")
        assert (metadata.get("hook_layer") == 1) == (format == "saebench")
        card = (folder / "README.md").read_text()
        assert f"SAE.load_from_disk('{title}')" in card
        nmse = json.loads((point(first, title) / "results.json").read_text())["metrics"]["nmse"]
        assert f"{nmse:.4f}" in card
    require_no_local_paths(root, str(tiny_model), str(texts))


def test_points_that_normalise_are_refused_by_formats_without_normalisation(first, command):
    for format in ("dictionary_learning", "sparsify"):
        ran = command("task=export", "name=first", f"format={format}")
        assert (ran.code, ran.out) == (1, "")
        assert len(ran.err.splitlines()) == 4
        problem = (
            f"export.normalized=False: the SAE normalises activations (layer_norm), which {format} cannot represent"
        )
        title = TITLES[2] if format == "sparsify" else TITLES[0]  # sparsify has no BatchTopK at all
        assert f"export: {title}: {problem}. Fix: train with sae.normalize_input=false, or " in ran.err
        assert not (first / "export" / format).exists()


def test_points_can_be_exported_to_expect_normalised_activations(first, command):
    ran = command("task=export", "name=first", "format=dictionary_learning", "export.normalized=true")
    assert (ran.code, ran.err) == (0, "")
    input_BD, mean_B1, std_B1 = normalized(x_BD())
    for title in TITLES:
        folder = first / "export" / "dictionary_learning" / title
        mine, again = load_sae(point(first, title)), load_sae(folder)
        assert again.normalization == "layer_norm"  # as its configuration says, which the library does not look at
        assert_close(again(x_BD()), mine(x_BD()), rtol=1e-5, atol=1e-5)
        again.normalization = "none"
        assert_close(again(input_BD) * std_B1 + mean_B1, mine(x_BD()), rtol=1e-4, atol=1e-4)
        assert "**It expects normalised activations**" in (folder / "README.md").read_text()
        described = locate(str(folder)).describe()
        assert (described.k, described.hook, described.dict_size) == (4, "blocks.0.hook_resid_post", mine.dict_size)


def test_architectures_a_format_lacks_are_refused_and_the_other_saes_are_written(first, command, tiny_model, texts):
    ran = command("task=export", "name=first", "format=sparsify", "export.normalized=true")
    assert ran.code == 1
    refused = ran.err.splitlines()
    problem = "sparsify does not support the architecture batchtopk, but only topk"
    problem += ". Fix: set format=sae_lens, which supports this SAE"
    assert refused == [f"export: {title}: format=sparsify: {problem}" for title in TITLES[:2]]
    root = first / "export" / "sparsify"
    assert sorted(entry.name for entry in root.iterdir()) == TITLES[2:]
    input_BD, mean_B1, std_B1 = normalized(x_BD())
    for title in TITLES[2:]:
        assert files(root / title) == {
            "config.json",
            *(f"layers.0/{name}" for name in ("cfg.json", "sae.safetensors", "README.md")),
        }
        mine, again = load_sae(point(first, title)), load_sae(root / title / "layers.0")
        assert_close(again(input_BD) * std_B1 + mean_B1, mine(x_BD()), rtol=1e-4, atol=1e-4)
        described = locate(str(root / title / "layers.0")).describe()
        assert (described.model, described.hook) == (tiny_model.name, "blocks.0.hook_resid_post")
        assert (
            f"SparseCoder.load_from_disk('{title}/layers.0')" in (root / title / "layers.0" / "README.md").read_text()
        )
    require_no_local_paths(root, str(tiny_model), str(texts))


SUPPORTED = {  # architectures per format
    "sae_lens": {"relu", "topk", "batchtopk", "jumprelu", "gated"},
    "saebench": {"relu", "topk", "batchtopk", "jumprelu", "gated"},
    "dictionary_learning": {"relu", "topk", "jumprelu", "gated"},  # and batchtopk, of a known k
    "sparsify": {"topk"},
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk", "jumprelu", "gated"])
def test_saes_from_other_libraries_are_exported(tmp_path, command, tiny_model, format, architecture):
    sae = foreign(architecture)
    folder = saved("sae_lens", tmp_path / "of-others", sae, str(tiny_model))
    words = ["task=export", f"sae={folder}", f"format={format}", "export.folder=out"]
    ran = command(*words)
    theirs = load_sae(folder)
    assert_close(theirs(x_BD()), sae(x_BD()), rtol=1e-5, atol=1e-5)
    title = f"{theirs.architecture}-40-of-others"  # a BatchTopK SAE is a JumpReLU there
    if theirs.architecture not in SUPPORTED[format]:
        assert ran.code == 1
        assert re.match(rf"export: {title}-[0-9a-f]{{8}}: format={format}: ", ran.err)
        assert "Fix: set format=sae_lens" in ran.err
        assert not (tmp_path / "out").exists()
        return
    assert (ran.code, ran.err) == (0, "")
    (card,) = (tmp_path / "out").rglob("README.md")
    again = load_sae(card.parent)
    assert_close(again(x_BD()), sae(x_BD()), rtol=1e-5, atol=1e-5)
    # rows get norm 1 where latents are selected each by its own threshold; the card says which was done
    is_rescaled = theirs.architecture in ("relu", "jumprelu", "gated")
    norm_F = sae.W_dec.norm(dim=1)
    assert_close(again.encode(x_BD()), sae.encode(x_BD()) * (norm_F if is_rescaled else 1), rtol=1e-5, atol=1e-5)
    assert again.has_unit_rows() == is_rescaled
    assert ("decoder rows were rescaled to norm 1" if is_rescaled else "rows do not have norm 1") in card.read_text()
    assert front_matter(card)["tags"] == ["sparse-autoencoder", "interpretability"]
    assert "## Metrics" not in card.read_text(), "no metrics are known"
    require_no_local_paths(tmp_path / "out", str(tiny_model))


@pytest.mark.parametrize(
    ("format", "named"), [("saebench", "the model and the layer"), ("dictionary_learning", "the k")]
)
def test_a_field_that_the_format_needs_and_nobody_knows_is_named(tmp_path, command, format, named):
    if format == "saebench":
        folder = saved("sae_lens", tmp_path / "saes" / "nameless", foreign("relu"), None)
    else:
        folder = saved("dictionary_learning", tmp_path / "saes" / "nameless", foreign("batchtopk"), None)
        config = folder / "config.json"
        config.write_text(json.dumps({"trainer": {**json.loads(config.read_text())["trainer"], "k": None}}))
    ran = command("task=export", f"sae={folder}", f"format={format}", "export.folder=out")
    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert f"needs {named}" in line
    assert "Fix: set format=sae_lens" in line


def test_saes_with_the_same_folder_name_do_not_overwrite_each_other(tmp_path, command, tiny_model):
    folders = [
        saved("sae_lens", tmp_path / run / "trainer_0", foreign("relu", seed=seed), str(tiny_model))
        for seed, run in enumerate("ab")
    ]
    ran = command("-m", "task=export", f"saved={','.join(map(str, folders))}", "export.folder=out")
    assert (ran.code, ran.err) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_an_sae_that_cannot_be_read_is_reported_by_its_setting(tmp_path, command):
    folder = saved("sae_lens", tmp_path / "cut", foreign("relu"), "gpt2")
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    ran = command("task=export", f"sae={folder}")
    assert (ran.code, ran.out) == (1, "")
    problem = "cannot be read as sae_lens (sae_weights.safetensors is damaged, cut short or of another kind ("
    assert ran.err.startswith(f"error: saved={folder}: {problem}")
    assert ran.err.endswith("Fix: download or copy it again\n")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("model", "base"),
    [("owner/some-model.v2", "owner/some-model.v2"), ("gpt2", None), ("owner/model: a 'name'", None)],
)
def test_the_front_matter_of_a_card_is_yaml(tmp_path, command, format, model, base):
    folder = saved("sae_lens", tmp_path / "mine", foreign("topk"), model)
    assert command("task=export", f"sae={folder}", f"format={format}", "export.folder=out").code == 0
    (card,) = (tmp_path / "out").rglob("README.md")
    head = front_matter(card)
    assert head.get("base_model") == base
    assert re.fullmatch(r"[a-z_]+", head["library_name"])
