"""The names of models, source sets and SAEs on Neuronpedia, which are parts of its addresses."""

import re

# ids on Neuronpedia that are not the last part of the model's name on the hub, in lower case
MODELS = {
    "gpt2": "gpt2-small",
    "gemma-3-1b-pt": "gemma-3-1b",
    "gemma-3-4b-pt": "gemma-3-4b",
    "gemma-3-12b-pt": "gemma-3-12b",
    "gemma-3-27b-pt": "gemma-3-27b",
    "llama-3.1-8b": "llama3.1-8b",
    "meta-llama-3.1-8b": "llama3.1-8b",
    "llama-3.1-8b-instruct": "llama3.1-8b-it",
    "llama-3.3-70b-instruct": "llama3.3-70b-it",
    "qwen2.5-1.5b-instruct": "qwen2.5-1.5b-it",
    "qwen2.5-7b-instruct": "qwen2.5-7b-it",
    "qwen3.5-2b-base": "qwen3.5-2b-pt",
    "qwen3.5-9b-base": "qwen3.5-9b-pt",
}
SITES = {  # place of a hook in a block -> its abbreviation in source sets, its name
    "hook_resid_pre": ("res", "residual stream"),
    "hook_resid_mid": ("res-mid", "residual stream between attention and MLP"),
    "hook_resid_post": ("res", "residual stream"),
    "hook_attn_out": ("att", "attention output"),
    "hook_mlp_out": ("mlp", "MLP output"),
}


def name_model(name: str) -> str:
    """Return the id on Neuronpedia of a model on the hub, or of one in a folder: its name in lower case, if unknown."""
    last = slugify(name.rstrip("/").rpartition("/")[2], "._")
    return MODELS.get(last, last)


def slugify(text: str, kept: str = "") -> str:
    """Return a text as a part of an address: lower-case letters, digits and single - between them; "sae" for nothing.

    kept: other characters that stay
    """
    letters = rf"[^a-z0-9{re.escape(kept)}]+"
    return re.sub(r"-+", "-", re.sub(letters, "-", text.lower())).strip("-" + kept) or "sae"


def describe_site(hook_type: str) -> tuple[str, str]:
    """Return the abbreviation and the name of a hook's place in its block, such as hook_resid_pre."""
    short = slugify(hook_type.removeprefix("hook_"))
    return SITES.get(hook_type, (short, short))
