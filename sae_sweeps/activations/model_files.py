"""The files of a language model: what is wrong with them, and why transformers refused to load them."""

import re
from pathlib import Path

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.file_faults import FETCH_AGAIN, find_file_fault, list_tensors
from sae_sweeps.runtime.files import read_json
from sae_sweeps.runtime.paths import expand_folder, find_relative_problem

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
        "add its tokenizer.json to the folder, or pip install sentencepiece",
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
    folder = expand_folder(name, "model.name")
    if not folder.is_dir():
        return
    if (error := _find_fault(name, folder)) is not None:
        raise error
    if not any((folder / file).exists() for file in WEIGHTS):
        problem, fix = NO_WEIGHTS
        raise ConfigError("model.name", name, problem, fix)


def find_model_file(name: str, file: str) -> Path | None:
    """Return the path of a file of a local model, or of a model in the hub's cache; None if it is not there."""
    folder = expand_folder(name, "model.name")
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, file)
    return Path(cached) if isinstance(cached, str) else None


def lacks_bos(name: str) -> bool:
    """Return whether the files of a local model say that its tokenizer has no BOS token; False if they do not."""
    folder = expand_folder(name, "model.name")
    settings, special = (read_json(folder / file) for file in ("tokenizer_config.json", "special_tokens_map.json"))
    if not isinstance(settings, dict) or settings.get("bos_token") is not None:
        return False
    if isinstance(special, dict) and special.get("bos_token") is not None:
        return False
    # other classes have a BOS token of their own unless the file has null for it
    return "bos_token" in settings or settings.get("tokenizer_class") in (
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
    )


def no_bos_error() -> ConfigError:
    """Return the error to raise if sequences are to start with BOS, but the tokenizer has no such token."""
    problem = "the model's tokenizer has no BOS token"
    return ConfigError("dataset.prepend_bos", True, problem, "dataset.prepend_bos=false")


def explain_refusal(name: str, error: BaseException, problem: str) -> ConfigError:
    """Return the error to raise where a library could not load the model `name`, with the cause and a fix for it.

    problem: says what could not be done, if the library's message has no known cause
    """
    folder = expand_folder(name, "model.name")
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
    named = {weight: shard for index in weights for weight, shard in _read_index(index).items()}
    shards = [folder / shard for shard in sorted(set(named.values()))]
    if problem := next(filter(None, map(find_relative_problem, named.values())), None):
        problem = f"{weights[0].name} names a file that is not in the folder: {problem}"
        return ConfigError("model.name", name, problem, FETCH_AGAIN)
    for path in (folder / "config.json", *map(folder.joinpath, TOKENIZER_FILES), *weights, *shards):
        if path in shards and not path.exists():
            problem = f"{weights[0].name} names {path.name}, which is missing"
            return ConfigError("model.name", name, problem, FETCH_AGAIN)
        if path.exists() and (fault := find_file_fault(path)) is not None:
            return ConfigError("model.name", name, f"its file {path.name} {fault[0]}", fault[1])
    if named and (difference := _find_unnamed(weights[0], named)) is not None:
        return ConfigError("model.name", name, difference, FETCH_AGAIN)
    return None


def _read_index(index: Path) -> dict[str, str]:
    """Return weight -> file name of its shard, from an index of weights; nothing for any other file."""
    found = read_json(index) if index.name.endswith(INDEX) else None
    named = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(named, dict):
        return {}
    return {weight: shard for weight, shard in named.items() if isinstance(shard, str)}


def _find_unnamed(index: Path, named: dict[str, str]) -> str | None:
    """Return what is wrong if an index and its shards do not have the same weights; None if they have."""
    for shard in sorted(set(named.values())):
        if shard.endswith(".safetensors"):
            held = set(list_tensors(index.parent / shard))
            listed = {weight for weight, file in named.items() if file == shard}
            if different := sorted(held ^ listed):
                return f"{index.name} and {shard} do not have the same weights: only one of them has {different[0]}"
    return None
