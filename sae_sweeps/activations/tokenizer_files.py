"""The tokenizer's files in a model's folder: checked before the model is loaded."""

from typing import TYPE_CHECKING

from sae_sweeps.activations.model_info import is_local_path
from sae_sweeps.activations.text_files import HEAD, LFS_POINTER
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.paths import expand_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

JSON_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
OTHER_FILES = ("tokenizer.model", "spiece.model", "vocab.txt", "merges.txt")


def check_tokenizer_files(name: str) -> None:
    """Check that a local model's folder has a tokenizer, and that its files are complete, as far as their ends show.

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
        size = (folder / file).stat().st_size
        with open(folder / file, "rb") as stream:
            head = stream.read(HEAD)
            stream.seek(max(0, size - HEAD))
            tail = stream.read()
        if head.startswith(LFS_POINTER):
            raise ConfigError("model.name", name, f"{file} is a Git LFS pointer, not the file itself", "git lfs pull")
        if file in JSON_FILES and not (head.lstrip().startswith((b"{", b"[")) and tail.rstrip().endswith((b"}", b"]"))):
            raise _damaged(name, file, "it is no whole JSON value")


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
    return ConfigError("model.name", name, f"{file} is cut off or damaged ({reason})", "fetch the file again")
