"""Trained SAEs on disk: finding them by folder, refusing folders without an SAE, and pairing them."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from sae_sweeps.config import Config
from sae_sweeps.formats import saelens
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes import TopKSAE
from sae_sweeps.sweep import Point
from sae_sweeps.sweep.sae_groups import group_by_settings, pair_neighbours
from sae_sweeps.sweep.saved_saes import SavedSAE, find_saved_sae, from_point
from tests.commands import DONE_RESULTS
from tests.conftest import composed

HOOK = "blocks.1.hook_resid_pre"


def saved_in(folder: Path, **metadata) -> Path:
    """Save an SAE with 24 latents, three of them active, and return its folder."""
    saelens.write(
        folder, TopKSAE(192, 24, 3).for_inference(), {"model_name": "embedded/model", "hook_name": HOOK, **metadata}
    )
    return folder


@pytest.fixture
def point(tmp_path) -> Path:
    """The folder of a finished point."""
    folder = tmp_path / "sweep" / "topk-24-k3-seed0-0123abcd"
    config = composed("sae=topk", "dict_size=24", "k=3", f"model.hook={HOOK}", "dataset.seq_len=64")
    saved_in(folder / "sae")
    (folder / "results.json").write_text(json.dumps({**json.loads(DONE_RESULTS), "config": asdict(config)}))
    (folder / "wandb_run.json").write_text('{"id": "abc123"}')
    return folder


@pytest.mark.parametrize("part", ["", "sae"])
def test_a_point_is_found_with_the_configuration_it_was_trained_with(point, part):
    found = find_saved_sae(str(point / part), "small", composed())
    assert (found.name, found.folder, found.run) == (point.name, point / "sae", "abc123")
    assert (found.config.dataset.seq_len, found.config.model.hook) == (64, HOOK)
    assert (found.title, found.config.dict_size, found.config.k) == ("topk-24-k3-seed0", 24, 3)
    assert found.load(torch.device("cpu")).dict_size == 24


def test_a_point_is_the_same_found_by_folder_or_by_sweep(point):
    config = find_saved_sae(str(point), "saved", composed()).config
    known, named = from_point(Point(config, point)), find_saved_sae(str(point), "name", composed())
    assert known == named
    assert known.describe() == named.describe()
    assert known.describe()["wandb_run"] == "abc123"


def test_a_relative_folder_starts_at_the_working_directory(point, tmp_path):
    assert find_saved_sae(str(point.relative_to(tmp_path)), "saved", composed()).folder == point / "sae"


@pytest.mark.parametrize("part", ["mine", "mine/sae"])
def test_a_copied_sae_has_its_own_size_and_the_model_and_text_of_the_command(tmp_path, part):
    saved_in(tmp_path / part)
    command = composed(f"model.hook={HOOK}", "dataset.seq_len=32", "dict_size=999")
    found = find_saved_sae(str(tmp_path / "mine"), "saved", command)
    assert (found.name, found.title, found.run) == ("mine", "mine", None)
    assert (found.config.sae.architecture, found.config.dict_size, found.config.k) == ("topk", 24, 3)
    assert (found.config.model, found.config.dataset) == (command.model, command.dataset)


def test_a_copied_sae_of_another_hook_is_refused_with_the_setting_to_change(tmp_path):
    with pytest.raises(ConfigError, match=rf"^large=.*was trained at {HOOK}.* Fix: model\.hook={HOOK}$"):
        find_saved_sae(str(saved_in(tmp_path / "mine")), "large", composed())


FOREIGN = ['{"d_sae": 3}', '{"d_sae": 3, "metadata": null}', '{"metadata": {"hook_name": "h"}}', '{"metadata": "none"}']


@pytest.mark.parametrize("content", [None, "", "[1]", "not JSON", *FOREIGN])
def test_a_folder_without_an_sae_is_refused_in_one_line(tmp_path, content):
    folder = tmp_path / "other"
    if content is not None:
        folder.mkdir()
        (folder / "cfg.json").write_text(content)
        (folder / "sae_weights.safetensors").touch()
    with pytest.raises(ConfigError) as refused:
        find_saved_sae(str(folder), "saved", composed())
    nothing = "there is no such folder" if content is None else "cannot be read as sae_lens ("
    assert str(refused.value).startswith(f"saved={folder}: {nothing}")
    assert "\n" not in str(refused.value)


def test_an_sae_without_weights_is_refused(tmp_path):
    (saved_in(tmp_path / "mine") / "sae_weights.safetensors").unlink()
    with pytest.raises(ConfigError, match="holds no SAE"):
        find_saved_sae(str(tmp_path / "mine"), "saved", composed(f"model.hook={HOOK}"))


@pytest.mark.parametrize("left", [0, 100, -7])
def test_truncated_weights_are_refused_in_one_line_when_loaded(point, left):
    file = point / "sae" / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ConfigError, match=r"^small=.*cannot be read as sae_lens \(.*Fix: ") as refused:
        find_saved_sae(str(point), "small", composed()).load(torch.device("cpu"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("config", [{}, {"sae": 3}, {"model": None, "extra": 1}])
def test_a_point_without_a_configuration_is_refused_in_one_line(point, config):
    (point / "results.json").write_text(json.dumps({**json.loads(DONE_RESULTS), "config": config}))
    with pytest.raises(ConfigError, match=r"^saved=.*the results\.json of the point holds no configuration") as refused:
        find_saved_sae(str(point), "saved", composed())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("identity", ["[]", "{}", "3", "{"])
def test_a_point_whose_run_is_not_noted_has_none(point, identity):
    (point / "wandb_run.json").write_text(identity)
    assert find_saved_sae(str(point), "saved", composed()).run is None


def test_a_folder_that_may_not_be_entered_is_refused_in_one_line(point, monkeypatch):
    """Tests may run as root, who may enter every folder, so the refusal of the operating system is imitated."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    command = composed()
    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\)\. Fix: ask the owner for permission"):
        find_saved_sae(str(point), "saved", command)


@pytest.mark.parametrize(
    ("metadata", "remark"),
    [
        ({"context_size": 1024}, "it was trained on sequences of 1024 tokens, but dataset.seq_len=128"),
        ({"context_size": 128}, None),
        ({"hook_name": ""}, "its files name no hook; the command's are assumed to be the SAE's"),
        ({"model_name": None}, "its files name no model; the command's are assumed to be the SAE's"),
        ({"prepend_bos": True}, None),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": True}}, "it was trained on a centred residual"),
    ],
)
def test_what_files_leave_open_or_declare_otherwise_is_remarked_on(tmp_path, metadata, remark):
    folder = tmp_path / "mine"
    sae = TopKSAE(192, 24, 3, normalize_input=False).for_inference()
    saelens.write(folder, sae, {"model_name": "embedded/model", "hook_name": HOOK, **metadata})
    found = find_saved_sae(str(folder), "saved", composed(f"model.hook={HOOK}", "dataset.seq_len=128"))
    assert [each[: len(remark or "")] for each in found.list_remarks(found.config)] == ([remark] if remark else [])


def test_the_digest_depends_on_the_weights(point, tmp_path):
    torch.manual_seed(0)
    digests = [
        find_saved_sae(str(saved_in(tmp_path / name)), "saved", composed(f"model.hook={HOOK}")).digest()
        for name in "ab"
    ]
    assert digests[0] == digests[1]  # both are initialised from the same seed
    file = point / "sae" / "sae_weights.safetensors"
    before = find_saved_sae(str(point), "saved", composed()).digest()
    file.write_bytes(file.read_bytes() + b" ")
    assert find_saved_sae(str(point), "saved", composed()).digest() != before


def named(*words: str) -> SavedSAE:
    config: Config = composed(*words)
    return SavedSAE(" ".join(words), Path("nowhere"), config)


def pairs(*saes: SavedSAE) -> list[tuple[int, int]]:
    return [(small.config.dict_size, large.config.dict_size) for small, large in pair_neighbours(saes)]


def test_pairs_are_neighbours_in_dictionary_size():
    sizes = [named("sae=topk", f"dict_size={size}") for size in (96, 48, 192)]
    assert pairs(*sizes) == [(48, 96), (96, 192)]


@pytest.mark.parametrize("word", ["k=16", "seed=1", "sae=topk", "training.lr=1e-3", "dataset.seq_len=64"])
def test_saes_that_differ_in_more_than_their_size_are_no_pair(word):
    saes = [named("dict_size=48"), named("dict_size=96", word)]
    assert pairs(*saes) == []
    assert [len(family) for family in group_by_settings(saes)] == [1, 1]
    assert pairs(*saes, named("dict_size=96"), named("dict_size=48", word)) == [(48, 96), (48, 96)]


@pytest.mark.parametrize("word", ["training.log_every=3", "training.checkpoint_every=7", "training.keep_states=false"])
def test_settings_that_do_not_affect_results_do_not_separate_a_pair(word):
    assert pairs(named("dict_size=48"), named("dict_size=96", word)) == [(48, 96)]


def test_a_coefficient_from_the_models_table_equals_the_same_one_set_explicitly():
    listed = ("sae=jumprelu", "model=gpt2-small")
    given = f"sae.sparsity_coefficient={composed(*listed).model.sparsity_coefficients.values[32]}"
    more = "+model.sparsity_coefficients.values={8: 0.02}"
    small = named(*listed, "dict_size=48")
    estimator = ["sae.penalty_window=upper", "sae.threshold_parameter=log", "sae.absolute_threshold=1"]
    assert pairs(small, named(*listed, "dict_size=96", given, *estimator)) == [(48, 96)]
    assert pairs(small, named(*listed, "dict_size=96", given)) == []  # the list brings its estimator
    assert pairs(small, named(*listed, "dict_size=96", more)) == [(48, 96)]
    assert pairs(small, named(*listed, "dict_size=96", "sae.sparsity_coefficient=0.5")) == []
    assert pairs(small, named(*listed, "dict_size=96", "sae.target_l0=32")) == []


def test_no_saes_make_no_pairs():
    assert pair_neighbours([]) == []
