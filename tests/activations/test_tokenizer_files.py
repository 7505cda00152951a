"""A tokenizer whose files are missing, cut off or pointers is one error before the model is loaded."""

import shutil

import pytest

from sae_sweeps.activations.tokenizer_files import check_tokenizer_files, read_tokenizer
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep.preflight import INPUT_CHECKS, Preflight
from tests.activations.test_text_files import POINTER
from tests.conftest import composed


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model"])
def test_a_file_that_is_a_pointer_is_named_as_one(model, file):
    check_tokenizer_files(str(model))
    (model / file).write_bytes(POINTER)
    with pytest.raises(ConfigError, match=rf"{file} is a Git LFS pointer, not the file itself\. Fix: git lfs pull$"):
        check_tokenizer_files(str(model))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_file_that_is_cut_off_is_refused(model, file, size):
    (model / file).write_bytes(
        b'{"version": "1.0", "truncation": null, "more": "and more of it", "last": "value"}'[:size]
    )
    if size == 100:
        (model / file).write_bytes(b'{"version": "1.0", "trunc')
    with pytest.raises(ConfigError, match=f"{file} (is empty|is not JSON)"):
        check_tokenizer_files(str(model))


def test_a_file_that_no_tokenizer_can_be_made_from_is_refused(model):
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"its tokenizer\.json cannot be read"):
        read_tokenizer(str(model))


def test_a_folder_without_a_tokenizer_is_refused(model):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (model / file).unlink()
    assert read_tokenizer(str(model)) is None
    with pytest.raises(ConfigError, match="the folder has no tokenizer"):
        check_tokenizer_files(str(model))


def test_the_problem_is_reported_once_and_with_those_of_the_text(model, tiny):
    (model / "tokenizer.json").write_bytes(POINTER)
    config = composed(*tiny, f"model.name={model}")
    (error,) = Preflight().find_problems(config, INPUT_CHECKS)
    assert error.problem == "its file tokenizer.json is a Git LFS pointer, not the file itself"
    config = composed(*tiny, f"model.name={model}", "dataset.files=nowhere")
    assert [each.setting for each in Preflight().find_problems(config, INPUT_CHECKS)] == ["model.name", "dataset.files"]


def test_letters_that_spell_a_special_token_are_text(model):
    tokenizer = read_tokenizer(str(model))
    assert tokenizer.encode("a <|endoftext|> b", add_special_tokens=False).ids.count(0) == 0
