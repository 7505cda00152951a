"""Where an SAE's files say that it was trained: names of hooks and of modules, as hooks of this project."""

import re

from sae_sweeps.activations.hooks import split_hook
from sae_sweeps.formats.files import SAEFileError, show

LONGEST = 100  # letters of a place
PLACE = re.compile(r"\w[\w-]*(\.[\w-]+)*", re.ASCII)

# a transformer block in Hugging Face models: model.layers.3, transformer.h.3, gpt_neox.layers.3, layers.3
BLOCK = re.compile(r"(?:[a-z_]+\.)*(?:layers|h|blocks|block|layer)[._](\d{1,4})((?:\.\w+)*)", re.ASCII)
# hooks by what is named in the block; the name of a module stands for its output
IN_BLOCK = {
    "": "hook_resid_post",
    ".output": "hook_resid_post",
    ".input": "hook_resid_pre",
    ".mlp": "hook_mlp_out",
    ".mlp.output": "hook_mlp_out",
    ".post_feedforward_layernorm.output": "hook_mlp_out",  # where a block has it, TransformerLens' hook is behind it
    ".attn": "hook_attn_out",
    ".self_attn": "hook_attn_out",
    ".attention": "hook_attn_out",
    ".self_attn.o_proj.input": "attn.hook_z",
}


def find_hook(place: str | None) -> str | None:
    """Return the hook that sees what a hook or a module names, such as blocks.3.hook_resid_post for model.layers.3.

    A name that is not understood is returned unchanged: it is a place that is declared, and no hook of this project.
    Raises: SAEFileError if it cannot be the name of any place.
    """
    if place is None:
        return None
    require_place(place)
    if split_hook(place) is not None and "hook_" in place:
        return place
    module = BLOCK.fullmatch(place)
    name = IN_BLOCK.get(module[2]) if module else None
    return place if module is None or name is None else f"blocks.{int(module[1])}.{name}"


def names_a_place(folder: str) -> bool:
    """Return whether a folder is named after a module: it contains the number of a block, or names embeddings."""
    return re.search(r"(?:^|[._])(?:layers|h|blocks|block|layer)[._]\d", folder) is not None or "embed" in folder


def require_place(place: str) -> None:
    """Require that a text can be the name of a hook or a module: words with dots between. Raises: SAEFileError."""
    if len(place) > LONGEST or not PLACE.fullmatch(place):
        raise SAEFileError(
            f"{show(place)!r} names no hook and no module: the name must be at most {LONGEST} letters, digits, dashes "
            "and underscores, with single dots between",
            "correct the name, or name another SAE",
        )
