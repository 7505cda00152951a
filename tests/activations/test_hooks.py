import pytest

from sae_sweeps.activations.hooks import as_block_output, hook_layer, is_same_activation, split_hook


@pytest.mark.parametrize(
    ("hook", "parts"),
    [
        ("blocks.0.hook_resid_pre", (0, "hook_resid_pre")),
        ("blocks.12.attn.hook_z", (12, "attn.hook_z")),
        ("hook_embed", None),
        ("blocks.x.hook_resid_pre", None),
        ("blocks.3", None),
        (None, None),
    ],
)
def test_a_hook_is_split_into_layer_and_name(hook, parts):
    assert split_hook(hook) == parts


def test_a_hook_outside_the_blocks_has_no_layer():
    assert hook_layer("blocks.7.hook_mlp_out") == 7
    with pytest.raises(ValueError, match="hook_embed is not a hook of a transformer block"):
        hook_layer("hook_embed")


def test_the_input_of_a_block_is_the_output_of_the_one_before():
    assert as_block_output("blocks.3.hook_resid_pre") == "blocks.2.hook_resid_post"
    assert as_block_output("blocks.0.hook_resid_pre") == "blocks.0.hook_resid_pre"
    assert as_block_output("blocks.3.hook_mlp_out") == "blocks.3.hook_mlp_out"
    assert is_same_activation("blocks.3.hook_resid_pre", "blocks.2.hook_resid_post")
    assert not is_same_activation("blocks.3.hook_resid_pre", "blocks.3.hook_resid_post")
