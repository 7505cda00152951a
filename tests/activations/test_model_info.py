import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_sweeps.activations.architectures import find_other_purpose
from sae_sweeps.activations.hooks import check_hook
from sae_sweeps.activations.model_files import explain_refusal, lacks_bos
from sae_sweeps.activations.model_info import ModelInfo, read_model_info
from sae_sweeps.runtime.errors import ConfigError

INFO = ModelInfo(n_layers=6, d_model=192, vocabulary=4096, context=256)


@pytest.mark.parametrize(
    "config",
    [
        {"n_layer": 6, "n_embd": 192, "vocab_size": 4096, "n_positions": 256},
        {"num_hidden_layers": 6, "hidden_size": 192, "vocab_size": 4096, "max_position_embeddings": 256},
        {
            "text_config": {
                "num_hidden_layers": 6,
                "hidden_size": 192,
                "vocab_size": 4096,
                "max_position_embeddings": 256,
            }
        },
    ],
)
def test_sizes_are_read_under_every_name_in_use(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_model_info(str(tmp_path)) == INFO


@pytest.mark.parametrize("text", ["[]", "{}", '{"n_layer": "many"}'])
def test_a_config_json_without_the_sizes_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="does not describe a transformer"):
        read_model_info(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]}, (26, 2304, 256000)),
        ({"model_type": "mpt", "d_model": 64, "n_layers": 3, "vocab_size": 90}, (3, 64, 90)),
        ({"model_type": "gemma3", "text_config": {"hidden_size": 1152}}, (26, 1152, 262208)),
        ({"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 32064}}, (32, 4096, 32064)),
        ({"model_type": "llama", "text_config": None, "hidden_size": 64}, (32, 64, 32000)),
        ({"model_type": "bloom", "n_embed": 48}, (2, 48, 250880)),
        ({"model_type": "qwen2", "hidden_size": 64}, (32, 64, 151936)),
    ],
)
def test_sizes_that_a_config_json_leaves_out_are_those_of_its_class(tmp_path, config, sizes):
    (tmp_path / "config.json").write_text(json.dumps(config))
    info = read_model_info(str(tmp_path))
    assert (info.n_layers, info.d_model, info.vocabulary) == sizes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_layer": "many"}, 'num_hidden_layers is "many"'),
        ({"n_layer": 0}, "num_hidden_layers is 0"),
        ({"n_embd": 192.5}, "hidden_size is 192.5"),
        ({"vocab_size": True}, "vocab_size is true"),
        ({"vocab_size": [4096]}, "vocab_size is [4096]"),
        ({"n_positions": "long"}, 'max_position_embeddings is "long"'),
        ({"is_encoder_decoder": True}, "is an encoder-decoder"),
        ({"architectures": ["BertForMaskedLM"]}, "fills in masked tokens (BertForMaskedLM)"),
        ({"architectures": ["RobertaForTokenClassification"]}, "is a classifier (RobertaForTokenClassification)"),
        ({"architectures": ["LlamaModel"]}, "has no language-model head, so it predicts no tokens (LlamaModel)"),
        ({"model_type": "electra"}, "is an encoder (electra)"),
    ],
)
def test_a_config_json_that_describes_no_decoder_is_refused_with_the_reason(tmp_path, changed, message):
    config = {"n_layer": 6, "n_embd": 192, "vocab_size": 4096, "n_positions": 256, **changed}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        read_model_info(str(tmp_path))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["GPT2LMHeadModel"]},
        {"architectures": ["Gemma3ForConditionalGeneration"]},
        {"architectures": ["BertLMHeadModel"], "model_type": "bert", "is_decoder": True},
        {"architectures": None},
        {"architectures": []},
        {},
    ],
)
def test_a_decoder_is_accepted_whatever_its_class_is_called(config):
    assert find_other_purpose(config) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SIZES = ["num_hidden_layers", "n_layer", "hidden_size", "d_model", "vocab_size", "max_position_embeddings"]
KEYS = [*SIZES, "n_positions", "text_config", "architectures", "is_encoder_decoder", "use_parallel_residual"]


@settings(max_examples=60, deadline=None)
@given(config=st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_value_in_a_config_json_gives_sizes_or_one_error(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt_neox", **config}))
    with contextlib.suppress(ConfigError):
        info = read_model_info(str(folder))
        assert min(info.n_layers, info.d_model, info.vocabulary) > 0


def test_a_damaged_config_json_is_named_with_what_is_wrong(tmp_path):
    for content, message in (
        (b"", "is empty"),
        (b'{"n_layer": 6', "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n", "is a Git LFS pointer"),
    ):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read_model_info(str(tmp_path))


def test_a_folder_that_hides_a_model_on_the_hub_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json.*rename this folder if you mean the model gpt2 on the hub"):
        read_model_info("gpt2")


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=f"is a file, not a folder. Fix: model.name={tmp_path}"):
        read_model_info(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("tokenizer", "special", "lacking"),
    [
        ({"bos_token": None, "tokenizer_class": "Qwen2Tokenizer"}, None, True),
        ({"tokenizer_class": "TokenizersBackend"}, None, True),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {"bos_token": "<s>"}, False),
        ({"tokenizer_class": "LlamaTokenizer"}, None, False),
        ({"bos_token": {"content": "<s>"}, "tokenizer_class": "TokenizersBackend"}, None, False),
        (None, None, False),
    ],
)
def test_a_tokenizer_without_bos_is_recognised_by_its_files(tmp_path, tokenizer, special, lacking):
    for name, content in (("tokenizer_config.json", tokenizer), ("special_tokens_map.json", special)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    assert lacks_bos(str(tmp_path)) is lacking


@pytest.mark.parametrize(
    ("message", "cause", "fix"),
    [
        ("requires you to execute ... set `trust_remote_code=True`", "wants to run Python code of its own", "choose"),
        ("CUDA out of memory. Tried to allocate 2 GiB", "does not fit into the memory", "model.dtype=bfloat16"),
        ("No module named 'sentencepiece.x'", "Python package that is not installed", "pip install sentencepiece"),
        ("FooTokenizer requires the protobuf library but", "that is not installed", "pip install protobuf"),
        ("You are trying to access a gated repo.", "is gated", "log in"),
        ("no such thing\n\non three lines", "cannot be loaded (ValueError: no such thing on three lines)", "check"),
    ],
)
def test_what_a_library_says_becomes_one_line_with_its_cause_and_a_fix(message, cause, fix):
    error = explain_refusal("owner/model", ValueError(message), "the model cannot be loaded")
    assert cause in error.problem
    assert error.fix.startswith(fix) or fix in error.fix
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere-at-all", "a/b/c"])
def test_a_missing_folder_is_refused(name):
    with pytest.raises(ConfigError, match="there is no such folder"):
        read_model_info(name)


def test_a_name_that_is_neither_folder_nor_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json"):
        read_model_info(str(tmp_path))
    with pytest.raises(ConfigError, match="hub"):
        read_model_info("not a name!")


@pytest.mark.parametrize(
    ("hook", "near"),
    [
        ("blocks.6.hook_resid_pre", "blocks.5.hook_resid_pre"),
        ("blocks.99.hook_mlp_out", "blocks.5.hook_mlp_out"),
        ("blocks.3.resid_pre", "blocks.3.hook_resid_pre"),
        ("blocks.3.hook_resid_prev", "blocks.3.hook_resid_pre"),
        ("zzz", "blocks.3.hook_resid_pre"),
    ],
)
def test_the_error_for_an_unknown_hook_lists_similar_hooks(hook, near):
    with pytest.raises(ConfigError, match="similar hooks") as caught:
        check_hook(hook, INFO)
    assert near in str(caught.value)
    assert hook in str(caught.value)


def test_known_hooks_are_accepted():
    for place in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"):
        check_hook(f"blocks.5.hook_{place}", INFO)
