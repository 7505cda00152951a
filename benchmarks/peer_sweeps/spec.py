"""What the scripts of this folder read from their argument: the model, the text and the SAEs of a sweep.

It needs nothing but torch and the standard library, so that it works in the environment of any library.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import torch


def read(argv: list[str]) -> dict[str, Any]:
    """Return the spec, a JSON object, and set the number of torch's threads."""
    spec = json.loads(argv[1])
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    return spec


def read_texts(spec: dict[str, Any]) -> list[str]:
    """Return the documents of a compressed file of JSON lines."""
    with gzip.open(Path(spec["text"]), "rt") as lines:
        return [json.loads(line)["text"] for line in lines]


def cut_texts(spec: dict[str, Any], tokenizer: Any) -> list[str]:
    """Return the documents in pieces that have about as many tokens as the context."""
    pieces = []
    for text in read_texts(spec):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        starts = range(0, len(ids) - spec["seq_len"] + 1, spec["seq_len"])
        pieces += [tokenizer.decode(ids[start : start + spec["seq_len"]]) for start in starts]
    return pieces


def split_layer(hook: str) -> int:
    """Return the block whose output a hook `blocks.L.hook_resid_pre` is, L - 1."""
    return int(hook.split(".")[1]) - 1


def name_module(hook: str) -> str:
    """Return the name of the block of a GPT-2 of transformers whose output is at a hook."""
    return f"transformer.h.{split_layer(hook)}"


def find_module(model: Any, hook: str) -> Any:
    """Return that block of a model in nnsight."""
    return model.transformer.h[split_layer(hook)]
