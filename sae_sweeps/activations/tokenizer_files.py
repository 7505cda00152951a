"""The tokenizer's files in a model's folder: checked before the model is loaded."""

from typing import TYPE_CHECKING

from sae_sweeps.activations.model_info import is_local_path
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.file_faults import FETCH_AGAIN, find_file_fault
from sae_sweeps.runtime.paths import expand_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

JSON_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
OTHER_FILES = ("tokenizer.model", "spiece.model", "vocab.txt", "merges.txt")


def check_tokenizer_files(name: str) -> None:
    """Check that a local model's folder has a tokenizer, and that its files are whole.

    Raises: ConfigError that names the file.
    """
    folder = expand_folder(name, "model.name")
    if not is_local_path(name) or not folder.is_dir():
        return
    found = [file for file in (*JSON_FILES, *OTHER_FILES) if (folder / file).is_file()]
    if not found and not any(folder.glob("*.tiktoken")):
        fix = "copy tokenizer.json and tokenizer_config.json of the model into it"
        raise ConfigError("model.name", name, "the folder has no tokenizer", fix)
    for file in found:
        if (fault := find_file_fault(folder / file)) is not None:
            raise ConfigError("model.name", name, f"its file {file} {fault[0]}", fault[1])


def read_tokenizer(name: str) -> "Tokenizer | None":
    """Return the tokenizer in tokenizer.json of a local model's folder; None if there is no such file.

    Characters that spell a special token are text to it. Raises: ConfigError if the file cannot be read.
    """
    from tokenizers import Tokenizer

    file = expand_folder(name, "model.name") / "tokenizer.json"
    if not is_local_path(name) or not file.is_file():
        return None
    check_tokenizer_files(name)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise _damaged(name, file.name, first_line(error)) from None
    tokenizer.encode_special_tokens = True
    return tokenizer


def _damaged(name: str, file: str, reason: str) -> ConfigError:
    return ConfigError("model.name", name, f"its {file} cannot be read ({reason})", FETCH_AGAIN)
