"""The files of a language model: what is wrong with them, and why transformers refused to load them."""

import re
from pathlib import Path

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.file_faults import FETCH_AGAIN, find_file_fault
from sae_sweeps.runtime.files import read_json

INDEX = ".index.json"  # end of the name of the file that says which shard has which weight
WEIGHTS = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
# files of a tokenizer, of which a model has some
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
MESSAGE_LENGTH = 300  # characters of a library's message that are shown

REMOTE_CODE = "wants to run Python code of its own, which is never done here"
OTHER_MODEL = "choose a model whose class is part of transformers"

NO_WEIGHTS = ("the folder has no weights", "give a folder that save_pretrained has written, with model.safetensors")

# part of a library's message, in lower case -> what is wrong with the model, and how to mend it
CAUSES = {
    "trust_remote_code": (REMOTE_CODE, OTHER_MODEL),
    "could not determine supported architecture": (
        "has an architecture that TransformerLens does not run",
        "choose a model of another architecture, or a newer version of transformer-lens",
    ),
    "out of memory": (
        "does not fit into the memory",
        "model.dtype=bfloat16, a smaller model, or a device with more memory",
    ),
    "gated repo": ("is gated", "accept its terms on the hub, and log in with `hf auth login`"),
    "couldn't instantiate the backend tokenizer": (
        "has a tokenizer that cannot be loaded",
        "add its tokenizer.json to the folder",
    ),
    "no file named model.safetensors": NO_WEIGHTS,
    "model type": (
        "has a model type that this version of transformers does not know",
        "a newer version of transformers, or another model",
    ),
}


def check_model_files(name: str) -> None:
    """Check the files of a local model without loading them.

    Raises: ConfigError if the folder lacks the weights or a shard, or if a file is a Git LFS pointer, cut or
    unreadable.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return
    if (error := _find_fault(name, folder)) is not None:
        raise error
    if not any((folder / file).exists() for file in WEIGHTS):
        problem, fix = NO_WEIGHTS
        raise ConfigError("model.name", name, problem, fix)


def explain_refusal(name: str, error: BaseException, problem: str) -> ConfigError:
    """Return the error to raise where a library could not load the model `name`, with the cause and a fix for it.

    problem: says what could not be done, if the library's message has no known cause
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and (found := _find_fault(name, folder)) is not None:
        return found
    text = " ".join(str(error).split()) or type(error).__name__
    message = text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]} ..."
    for part, (cause, fix) in CAUSES.items():
        if part in text.lower():
            return ConfigError("model.name", name, f"the model {cause} ({message})", fix)
    package = re.search(r"No module named '(\w+)|requires the (\w+) library|pip install (\w+)", text)
    if package is not None:
        problem = f"the model needs a Python package that is not installed ({message})"
        return ConfigError("model.name", name, problem, f"pip install {next(filter(None, package.groups()))}")
    fix = "check the files in the folder" if folder.is_dir() else "check the hub name and the network"
    return ConfigError("model.name", name, f"{problem} ({type(error).__name__}: {message})", fix)


def _find_fault(name: str, folder: Path) -> ConfigError | None:
    """Return an error for the first file of a model that is missing, cut, unreadable or no more than an LFS pointer."""
    weights = [folder / file for file in WEIGHTS if (folder / file).exists()][:1]  # transformers takes the first
    shards = [shard for index in weights for shard in _list_shards(index)]
    for path in (folder / "config.json", *map(folder.joinpath, TOKENIZER_FILES), *weights, *shards):
        if path in shards and not path.exists():
            problem = f"{weights[0].name} names {path.name}, which is missing"
            return ConfigError("model.name", name, problem, FETCH_AGAIN)
        if path.exists() and (fault := find_file_fault(path)) is not None:
            return ConfigError("model.name", name, f"its file {path.name} {fault[0]}", fault[1])
    return None


def _list_shards(index: Path) -> list[Path]:
    """Return the paths of the shards that an index of weights names; none for any other file."""
    if not index.name.endswith(INDEX):
        return []
    found = read_json(index)
    shards = found.get("weight_map") if isinstance(found, dict) else None
    names = set(shards.values()) if isinstance(shards, dict) else set()
    return sorted(index.parent / name for name in names if isinstance(name, str))
