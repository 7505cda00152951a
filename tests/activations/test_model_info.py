import json

import pytest

from sae_sweeps.activations.hooks import check_hook
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
