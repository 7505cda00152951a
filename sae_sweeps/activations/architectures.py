"""What a model's config.json shows of its architecture: whether it predicts the next token, and which hooks it has."""

from collections.abc import Mapping
from typing import Any

# hooks in a transformer block whose activations have the width of the residual stream, d_model
WIDE_HOOKS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
# attention and MLP read the same input, so there is no residual stream between them
PARALLEL_HOOKS = ("hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
# one mixer takes the place of attention and MLP
MIXER_HOOKS = ("hook_resid_pre", "hook_resid_post")

ALWAYS_PARALLEL = ("gptj", "codegen", "phi", "cohere", "cohere2")
MIXERS = ("mamba", "mamba2", "falcon_mamba", "recurrent_gemma")

# ends of the names of classes in `architectures` that predict the next token
DECODER_HEADS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "LMHead")
# ends of the names of other classes, and what these are
OTHER_HEADS = {
    "ForMaskedLM": "fills in masked tokens",
    "ForPreTraining": "fills in masked tokens",
    "Classification": "is a classifier",
    "ForMultipleChoice": "is a classifier",
    "ForQuestionAnswering": "marks answers in a text",
    "ForCTC": "transcribes speech",
    "Model": "has no language-model head, so it predicts no tokens",
}
ENCODERS = {
    *("albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"),
    *("nomic_bert", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xlnet"),
}


def find_other_purpose(config: Mapping[str, Any]) -> str | None:
    """Return what a model is, as a phrase, if its config.json says that it is no decoder with a language-model head.

    The result is None for a decoder, and for a config.json that does not show it.
    """
    if config.get("is_encoder_decoder") is True:
        return "is an encoder-decoder, which does not continue one text"
    named = config.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    model_type = config.get("model_type")
    if model_type in ENCODERS and not config.get("is_decoder"):
        return f"is an encoder ({names[0] if names else model_type}), which sees the tokens that it predicts"
    if not names or any(name.endswith(DECODER_HEADS) for name in names):
        return None
    for ending, purpose in OTHER_HEADS.items():
        if names[0].endswith(ending):
            return f"{purpose} ({names[0]})"
    return None


def list_hooks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the hooks of width d_model in each transformer block, by the language part of a config.json.

    For an architecture that is not known here they are WIDE_HOOKS: what the loaded model has is checked later.
    """
    model_type = config.get("model_type")
    if model_type in MIXERS:
        return MIXER_HOOKS
    parallel = {
        "gpt_neox": config.get("use_parallel_residual", True),
        "falcon": config.get("new_decoder_architecture", False) or config.get("parallel_attn", True),
        "stablelm": config.get("use_parallel_residual", False),
    }
    is_parallel = model_type in ALWAYS_PARALLEL or parallel.get(str(model_type), False)
    return PARALLEL_HOOKS if is_parallel else WIDE_HOOKS
