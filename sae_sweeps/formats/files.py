"""Reads the configuration and the weights in the files of SAEs; every failure names the file, the cause and a fix."""

import json
import reprlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.file_faults import DOWNLOAD_AGAIN, explain_unreadable

UNIT_SCALES = ("scaling_factor", "finetuning_scaling_factor")  # factors per latent; some libraries save ones
LONGEST_CONFIG = 2**24  # bytes
DEEPEST_CONFIG = 50  # levels of objects and lists in each other

# shapes of tensors by their names in all formats, with F latents and activations of width D; all others are (F,)
SHAPES = {
    **{"W_dec": "FD", "encoder.weight": "FD", "W_enc": "DF", "decoder.weight": "DF"},
    **dict.fromkeys(("b_dec", "bias", "decoder.bias", "decoder_bias"), "D"),
}
DECODERS = ("W_dec", "decoder.weight")  # their names; a file has one of the two
COUNTS = ("k", "group_sizes")  # tensors of whole numbers
REAL = ("float16", "bfloat16", "float32", "float64")
WHOLE = ("int8", "uint8", "int16", "int32", "int64")
SAFETENSORS_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


class SAEFileError(ValueError):
    """Raised for files that hold no SAE, or an SAE that is not supported. `fix`: what to do; None for no advice."""

    def __init__(self, problem: str, fix: str | None = None) -> None:
        super().__init__(problem)
        self.fix = fix


class Header(NamedTuple):
    """The shape of a tensor, and the name that torch has for its type, from the header of a file."""

    shape: tuple[int, ...]
    dtype: str


@contextmanager
def read_or_explain(file: Path) -> Iterator[None]:
    """Turn any error of the `with` body, which reads `file`, into a SAEFileError that explains it in one line."""
    try:
        yield
    except SAEFileError:
        raise
    except Exception as error:  # the readers of JSON, safetensors, zip and pickle have no common exception
        raise SAEFileError(*explain_unreadable(file, error)) from error


def read_config(file: Path) -> dict[str, Any]:
    """Return the JSON object in a configuration file.

    Raises: SAEFileError if the file does not hold one, or one that is too large to be the settings of an SAE.
    """
    with read_or_explain(file):
        is_large = file.stat().st_size > LONGEST_CONFIG
        config = None if is_large else json.loads(file.read_text(encoding="utf-8"))
    if is_large or not isinstance(config, dict):
        raise SAEFileError(
            f"{file.name} must hold a JSON object with the settings of an SAE, but "
            + (f"it has more than {LONGEST_CONFIG >> 20} MiB" if is_large else "the content is not a JSON object")
        )
    if _is_deeper(config, DEEPEST_CONFIG):
        raise SAEFileError(f"{file.name} has more than {DEEPEST_CONFIG} objects and lists in each other")
    return config


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether objects and lists lie in each other in more than this many levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper(one, levels - 1) for one in inner)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file, on the CPU. Check their headers first.

    Raises: SAEFileError if the file cannot be read.
    """
    with read_or_explain(file):
        return load_file(file)


def read_headers(file: Path) -> dict[str, Header]:
    """Return the shapes and types in a safetensors file, from its header. Raises: SAEFileError if it is unreadable."""
    with read_or_explain(file), safe_open(file, "pt") as stream:
        slices = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118  not a dict
        return {
            name: Header(tuple(one.get_shape()), SAFETENSORS_DTYPES.get(one.get_dtype(), one.get_dtype()))
            for name, one in slices.items()
        }


def require_tensors(
    file: str, found: Mapping[str, Any], needed: Collection[str], optional: Collection[str] = ()
) -> None:
    """Require that a file has the tensors that its SAE consists of, and no others.

    file: name of the file, for the message
    found: the file's tensors, or their shapes, by name
    optional: names of tensors that the file may have besides
    Raises: SAEFileError that names the tensors that are missing or left over.
    """
    if missing := sorted(set(needed) - set(found)):
        problem = f"{file} has no {', '.join(missing)}, which an SAE of this architecture needs"
        raise SAEFileError(problem, f"{DOWNLOAD_AGAIN}, or name another SAE")
    if surplus := sorted(set(found) - set(needed) - set(optional)):
        raise SAEFileError(
            f"{file} has {_shorten(surplus)}, which no SAE of this architecture has; it may be of another kind",
            "name another SAE",
        )


def require_shapes(
    headers: Mapping[str, Header], dict_size: int | None = None, d_in: int | None = None
) -> tuple[int, int]:
    """Require that the shapes of an SAE's tensors fit the decoder's, and this the sizes that are declared, if any are.

    Tensors must hold real numbers, and counts such as k whole ones. So what is loaded afterwards has the size of the
    SAE that is described, whatever the files hold.

    headers: the tensors by their usual names
    Returns: the numbers of latents and of entries in an activation.
    Raises: SAEFileError that names the first tensor with a problem.
    """
    decoder = next(name for name in DECODERS if name in headers)
    shape = headers[decoder].shape
    if len(shape) != 2 or 0 in shape:
        problem = f"{decoder} must be a matrix of latents by width, but it has the shape {reprlib.repr(shape)}"
        raise SAEFileError(problem)
    sizes = dict(zip(SHAPES[decoder], shape, strict=True))
    declared = dict_size or sizes["F"], d_in or sizes["D"]
    if (found := (sizes["F"], sizes["D"])) != declared:
        described = f"{declared[0]} latents and activations of width {declared[1]}"
        raise SAEFileError(f"{decoder} has the shape {shape}, but the configuration file declares {described}")
    for name, header in headers.items():
        _require_numbers(name, header)
        letters = SHAPES.get(name, "F")
        expected = tuple(sizes[letter] for letter in letters)
        are_counts = name in COUNTS and len(header.shape) == 1 and header.shape[0] <= sizes["F"]
        is_one = letters == "F" and header.shape in ((), (1,))  # which may stand for all latents
        if header.shape != expected and not (are_counts or is_one):
            problem = f"{name} has the shape {reprlib.repr(header.shape)}, but the shape must be {expected}"
            raise SAEFileError(f"{problem} for {found[0]} latents and activations of width {found[1]}")
    return found


def _require_numbers(name: str, header: Header) -> None:
    allowed = (*REAL, *WHOLE) if name in COUNTS else REAL
    if header.dtype not in allowed:
        raise SAEFileError(f"{name} has the type {header.dtype}, but the type must be one of {', '.join(allowed)}")


def require_unit_scales(weights: Mapping[str, Tensor]) -> None:
    """Require that factors per latent, which some libraries save, are 1. Raises: SAEFileError that names the factor."""
    for name in UNIT_SCALES:
        if name in weights and not torch.allclose(weights[name].float(), torch.ones(())):
            raise SAEFileError(
                f"the weights include {name}, a factor for each latent other than 1, which is not supported"
            )


def show(name: str) -> str:
    """Return a name from a file for a message: in one line, and cut short."""
    return reprlib.repr(name)[1:-1]


def in_one_line(error: Exception) -> SAEFileError:
    """Return an error of any class with which reading an SAE failed as a SAEFileError, in one line."""
    if isinstance(error, SAEFileError):
        return error
    return SAEFileError(f"the files have no entry {error}" if isinstance(error, KeyError) else first_line(error))


def _shorten(names: list[str]) -> str:
    return ", ".join(map(show, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
