"""Reads the configuration and the weights in the files of SAEs; every failure names the file, the cause and a fix."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sae_sweeps.runtime.errors import first_line
from sae_sweeps.runtime.file_faults import DOWNLOAD_AGAIN, explain_unreadable

UNIT_SCALES = ("scaling_factor", "finetuning_scaling_factor")  # factors per latent; some libraries save ones


class SAEFileError(ValueError):
    """Raised for files that hold no SAE, or an SAE that is not supported. `fix`: what to do; None for no advice."""

    def __init__(self, problem: str, fix: str | None = None) -> None:
        super().__init__(problem)
        self.fix = fix


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
    """Return the JSON object in a configuration file. Raises: SAEFileError if the file does not hold one."""
    with read_or_explain(file):
        config = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise SAEFileError(
            f"{file.name} must hold a JSON object with the settings of an SAE, but the content is not a JSON object"
        )
    return config


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file, on the CPU. Raises: SAEFileError if the file cannot be read."""
    with read_or_explain(file):
        return load_file(file)


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes in a safetensors file, from its header. Raises: SAEFileError if the file cannot be read."""
    with read_or_explain(file), safe_open(file, "pt") as stream:
        return {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118  not a dict


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


def require_shape(name: str, shape: tuple[int, ...], sizes: tuple[int, int]) -> None:
    """Require that a decoder has the shape (latents, width) that the configuration declares. Raises: SAEFileError."""
    if tuple(shape) != sizes:
        declared = f"{sizes[0]} latents and activations of width {sizes[1]}"
        raise SAEFileError(f"{name} has the shape {tuple(shape)}, but the configuration file declares {declared}")


def require_unit_scales(weights: Mapping[str, Tensor]) -> None:
    """Require that factors per latent, which some libraries save, are 1. Raises: SAEFileError that names the factor."""
    for name in UNIT_SCALES:
        if name in weights and not torch.allclose(weights[name].float(), torch.ones(())):
            raise SAEFileError(
                f"the weights include {name}, a factor for each latent other than 1, which is not supported"
            )


def in_one_line(error: Exception) -> SAEFileError:
    """Return an error of any class with which reading an SAE failed as a SAEFileError, in one line."""
    if isinstance(error, SAEFileError):
        return error
    return SAEFileError(f"the files have no entry {error}" if isinstance(error, KeyError) else first_line(error))


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
