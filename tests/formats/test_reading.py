"""Where an SAE is: a folder or a file in it, with or without a format, on this machine or on the hub."""

import json
import re
from pathlib import Path

import huggingface_hub as hub
import pytest
import torch
from huggingface_hub import constants

from sae_sweeps.activations import hub as hub_client
from sae_sweeps.formats import dictionary_learning, saelens, sparsify
from sae_sweeps.formats.description import Description
from sae_sweeps.formats.reading import load_sae, locate, split_spec
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes import TopKSAE
from sae_sweeps.sweep.saved_saes import find_saved_sae
from tests.conftest import composed
from tests.formats.published import D, F, weights
from tests.formats.test_gemma_scope import write as write_gemma_scope
from tests.formats.test_gemma_scope_2 import write as write_gemma_scope_2

DESCRIPTION = Description("topk", D, F, 3, "owner/model", "blocks.2.hook_resid_post")


def write(format: str, folder: Path) -> Path:
    """Write an SAE in a format, always of the same hook."""
    sae = TopKSAE(D, F, 3, normalize_input=False).for_inference()
    if format == "sae_lens":
        saelens.write(folder, sae, {"model_name": DESCRIPTION.model, "hook_name": DESCRIPTION.hook})
    elif format == "gemma_scope":
        write_gemma_scope(folder, {**weights(), "threshold": torch.ones(F)})
    elif format == "gemma_scope_2":
        write_gemma_scope_2(folder)
    elif format == "dictionary_learning":
        dictionary_learning.write(folder, sae, DESCRIPTION)
    else:
        sparsify.write(folder, sae, DESCRIPTION)
    return folder


FORMATS = ["sae_lens", "gemma_scope", "gemma_scope_2", "dictionary_learning", "sparsify"]
FILES = {
    "sae_lens": "sae_lens: cfg.json and sae_weights.safetensors",
    "gemma_scope": "gemma_scope: params.npz",
    "gemma_scope_2": "gemma_scope_2: config.json and params.safetensors",
    "dictionary_learning": "dictionary_learning: config.json and ae.pt",
    "sparsify": "sparsify: cfg.json and sae.safetensors",
}


@pytest.mark.parametrize("format", FORMATS)
def test_the_format_is_detected_or_given(tmp_path, format):
    folder = write(format, tmp_path / "layers.2")
    for spec in (str(folder), f"{format}:{folder}", f"{format}:layers.2", "./layers.2"):
        found = locate(spec)
        assert (found.format, found.folder) == (format, folder)
        assert [file.name for file in found.files] == FILES[format].partition(": ")[2].split(" and ")
        for file in found.files:
            assert file.is_file()
            assert locate(str(file)) == found
    for other in set(FORMATS) - {format}:
        with pytest.raises(ValueError, match="holds no SAE") as raised:
            locate(f"{other}:{folder}")
        expected = f"the folder must contain the files of one of these formats ({FILES[other]})"
        assert str(raised.value) == f"holds no SAE; {expected}"


def test_the_given_format_is_read_where_a_folder_has_two(tmp_path):
    write("sae_lens", tmp_path)
    write("gemma_scope", tmp_path)
    assert locate(str(tmp_path)).format == "sae_lens"
    assert locate(f"gemma_scope:{tmp_path}").format == "gemma_scope"


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("sparsify:a/b", ("sparsify", "a/b")),
        ("a:b", (None, "a:b")),
        ("/x/gemma_scope:y", (None, "/x/gemma_scope:y")),
        ("a/b", (None, "a/b")),
    ],
)
def test_only_a_known_format_before_the_colon_is_split_off(spec, parts):
    assert split_spec(spec) == parts


def test_an_sae_is_loaded_from_the_folder_repository_folders_point(tmp_path):
    write("sae_lens", tmp_path / "point" / "sae")
    assert load_sae(tmp_path / "point").dict_size == F
    assert load_sae(f"sae_lens:{tmp_path / 'point'}").dict_size == F
    with pytest.raises(ValueError, match="holds no SAE"):
        load_sae(f"sparsify:{tmp_path / 'point'}")


@pytest.mark.parametrize(
    ("format", "keys", "name"),
    [
        ("sae_lens", ("d_sae",), "dict_size"),
        ("sae_lens", ("d_in",), "d_in"),
        ("dictionary_learning", ("trainer", "dict_size"), "dict_size"),
        ("dictionary_learning", ("trainer", "activation_dim"), "d_in"),
        ("dictionary_learning", ("trainer", "k"), "k"),
        ("sparsify", ("num_latents",), "dict_size"),
        ("sparsify", ("d_in",), "d_in"),
    ],
)
def test_declared_sizes_are_checked_against_the_weights(tmp_path, format, keys, name):
    folder = write(format, tmp_path / "layers.2")
    file = folder / ("config.json" if format == "dictionary_learning" else "cfg.json")
    config = json.loads(file.read_text())
    inner = config
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] += 1
    file.write_text(json.dumps(config))
    declared = inner[keys[-1]]
    problems = [f"the configuration file declares {name} = {declared}, but the weights have {declared - 1}"]
    sizes = {"dict_size": F, "d_in": D, name: declared}
    declaration = f"declares {sizes['dict_size']} latents and activations of width {sizes['d_in']}"
    decoder, shape = ("decoder.weight", (D, F)) if format == "dictionary_learning" else ("W_dec", (F, D))
    problems.append(f"{decoder} has the shape {shape}, but the configuration file {declaration}")
    with pytest.raises(ValueError, match="|".join(map(re.escape, problems))):
        load_sae(folder)


def test_the_error_for_an_empty_folder_names_the_files_of_all_formats(tmp_path):
    with pytest.raises(ValueError, match="holds no SAE") as raised:
        locate(str(tmp_path))
    assert all(files in str(raised.value) for files in FILES.values())


@pytest.mark.parametrize("spec", ["nowhere", "./no/where/there", "/no/where", "sparsify:./nowhere", "~/no/where"])
def test_a_missing_folder_is_refused(spec):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        locate(spec)


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """Go offline, with an empty local cache of the hub. Returns the cache."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def cached(cache: Path, repository: str, commit: str = "0f1e2d3c") -> Path:
    """Make a repository in the cache. Returns its snapshot's folder."""
    repository_folder = cache / f"models--{repository.replace('/', '--')}"
    (repository_folder / "refs").mkdir(parents=True)
    (repository_folder / "refs" / "main").write_text(commit)
    return repository_folder / "snapshots" / commit


def test_a_hub_name_without_network_is_found_neither_here_nor_on_the_hub(offline):
    name = "google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
    with pytest.raises(
        FileNotFoundError, match="there is no such folder here, and google/gemma-scope-2b-pt-res is not"
    ):
        locate(name)
    command = composed("task=latents", f"saved={name}", "model.hook=blocks.1.hook_resid_pre")
    with pytest.raises(ConfigError) as raised:
        find_saved_sae(name, "saved", command)
    line = str(raised.value)
    assert line.startswith(f"saved={name}: there is no such folder here, and google/gemma-scope-2b-pt-res is not")
    assert "the hub cannot be reached" in line
    assert "Fix: saved=outputs/SWEEP/POINT, or FORMAT:FOLDER" in line
    assert "\n" not in line


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("inside", ["", "layers.2", "trained/layers.2"])
def test_a_hub_name_is_found_in_the_local_cache(offline, format, inside):
    snapshot = cached(offline, "owner/some-saes")
    write(format, snapshot / inside)
    name = "owner/some-saes" + f"/{inside}" * bool(inside)
    for spec in (name, f"{format}:{name}"):
        found = locate(spec)
        assert (found.format, found.folder) == (format, snapshot / inside)
    assert load_sae(name).dict_size == F
    if format == "sparsify" and inside:
        assert locate(name).describe().model == DESCRIPTION.model, "the config.json above the folder names it"


def test_a_folder_missing_from_a_cached_repository_holds_no_sae(offline):
    write("sae_lens", cached(offline, "owner/some-saes") / "here")
    with pytest.raises(ValueError, match="holds no SAE"):
        locate("owner/some-saes/elsewhere")


def test_only_needed_files_are_fetched(monkeypatch, tmp_path):
    downloads = []

    def download(repository, allow_patterns):
        downloads.append((repository, sorted(allow_patterns)))
        write("gemma_scope", tmp_path / "snapshot" / "a" / "b")
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(hub_client, "require_repository", lambda *_: None)
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert locate("gemma_scope:owner/name/a/b").format == "gemma_scope"
    assert downloads == [("owner/name", ["a/b/params.npz", "a/config.json"])]


def test_an_interrupted_download_is_a_one_line_error(monkeypatch):
    def download(repository, allow_patterns):
        raise OSError("connection reset\nby peer")

    monkeypatch.setattr(hub_client, "require_repository", lambda *_: None)
    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(FileNotFoundError, match=r"owner/name could not be fetched from the hub \(connection reset\)$"):
        locate("owner/name/a")


def test_the_text_in_digests_keeps_its_first_words():
    """Studies and exports of other libraries' SAEs are found again by a hash of this text."""
    described = Description("topk", 16, 40, 5, "owner/model", "blocks.2.hook_resid_post", False, "layer_norm", None)
    assert described.to_digest_text() == (
        "Description(architecture='topk', d_in=16, dict_size=40, k=5, model='owner/model', "
        "hook='blocks.2.hook_resid_post', trained_here=False, fed='layer_norm', of_directions=None)"
    )
