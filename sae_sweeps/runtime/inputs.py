"""Checks what a caller in Python gives: names of options, numbers, objects and activations, each refused in one line.

The command checks settings in config/validation.py; this is the door of the library (api.py, saes/, evaluation/,
studies/). Imports torch when called, because the settings' classes use it as well.
"""

# A activations, D model width

import difflib
import functools
import inspect
import math
import numbers
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sae_sweeps.runtime.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NARROWED = (
    "activations in float64 are converted to float32, in which SAEs compute; give float32 (x.float() in torch, "
    "x.astype('float32') in numpy) to save half of the memory"
)

CalledT = TypeVar("CalledT", bound=Callable[..., Any])


class UnknownOptionError(ConfigError, TypeError):
    """Raised for a keyword argument that a function does not have. The message suggests similar names."""


def check_names(called: CalledT) -> CalledT:
    """Wrap a function, or the constructor of a class, so that it refuses unknown keyword arguments with a suggestion.

    Raises (when called): UnknownOptionError.
    """
    if isinstance(called, type):
        called.__init__ = check_names(called.__init__)  # type: ignore[misc]
        return called
    name = called.__qualname__.removesuffix(".__init__")
    known = [each for each in inspect.signature(called).parameters if each not in ("self", "cls")]

    @functools.wraps(called)
    def checked(*args: Any, **options: Any) -> Any:
        for option, value in options.items():
            if option not in known:
                raise UnknownOptionError(option, describe(value), f"{name} has no such option", suggest(option, known))
        return called(*args, **options)

    return checked  # type: ignore[return-value]


def suggest(name: str, known: list[str]) -> str:
    """Return the known names that resemble `name` as a question, or all of them if none does."""
    near = difflib.get_close_matches(name, known, n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(known)}"


def describe(value: object) -> str:
    """Return a short text for a value in a message: the value itself if it is short, a shape, or the type."""
    if value is None or isinstance(value, numbers.Number | str | bool):
        return f"{value}" if len(f"{value}") <= 80 else f"{value}"[:77] + "..."
    if isinstance(shape := getattr(value, "shape", None), tuple):
        return f"{type(value).__name__} of shape {tuple(shape)}"
    if isinstance(value, list | tuple | dict):
        return f"{type(value).__name__} of {len(value)}"
    return value.__name__ if isinstance(value, type) else type(value).__name__


def require_type(name: str, value: Any, kind: Any, must_be: str, fix: str) -> None:
    """Check that `value` is a `kind`. Raises: ConfigError that names the type that it is."""
    if not isinstance(value, kind):
        raise ConfigError(name, describe(value), f"must be {must_be}", fix)


def require_whole(name: str, value: Any, least: int, most: float = math.inf, limit: str = "") -> int:
    """Return a whole number as an int, a number of numpy or 1e6 as well.

    limit: what the largest number is, for the message, such as "dict_size="
    Raises: ConfigError if `value` is not a whole number between `least` and `most`.
    """
    whole = to_plain(value, whole=True)
    if not isinstance(whole, int) or isinstance(whole, bool):
        shown = repr(value) if isinstance(value, str) else describe(value)
        raise ConfigError(name, shown, "must be a whole number", f"{name}={max(least, 1)}, for example")
    if whole < least:
        raise ConfigError(name, whole, f"must be at least {least}", f"{name}={least}")
    if whole > most:
        raise ConfigError(name, whole, f"must be at most {limit}{most}", f"{name}={most}, or less")
    return whole


def require_number(name: str, value: Any) -> None:
    """Check that `value` is a real number. Raises: ConfigError if it is not, or if it is a bool."""
    if not isinstance(to_plain(value), int | float) or isinstance(value, bool):
        shown = repr(value) if isinstance(value, str) else describe(value)
        raise ConfigError(name, shown, "must be a number", f"{name}=0.01, for example")


def to_plain(value: Any, *, whole: bool = False) -> Any:
    """Return numbers and arrays of numpy and torch as Python's, and with `whole` floats such as 1e6 as ints."""
    if type(value).__module__ in ("numpy", "torch") and hasattr(value, "tolist"):
        value = value.tolist()
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


def to_activations(
    name: str,
    value: Any,
    width: int | None = None,
    width_of: str = "d_in of the SAE",
    *,
    is_matrix: bool = True,
    dtype: "torch.dtype | None" = None,
    device: "torch.device | None" = None,
) -> "Tensor":
    """Return activations that a caller gives as a tensor: a tensor, a numpy array, or what `held_out` returns.

    width: D, or None for any; width_of: what D is, for messages
    is_matrix: whether the shape must be (A, D); otherwise (..., D)
    dtype: what to convert to; None keeps 16 and 32 bits, and converts float64 to float32. Losing digits of float64 is
        warned of, once

    Raises: ConfigError if the type, the shape or the kind of numbers is wrong, or if a number is not finite.
    """
    import torch

    shape = f"({'any number' if is_matrix else '...'}, {'width' if width is None else width})"
    x = _to_tensor(name, getattr(value, "acts_AD", value), shape)
    _require_shape(name, x, width, shape, width_of, is_matrix)
    if not bool((finite := x.isfinite()).all()):
        problem = f"must be finite, but {int((~finite).sum())} of {x.numel()} numbers are NaN or infinite"
        raise ConfigError(name, tuple(x.shape), problem, f"leave these rows out: {name}[{name}.isfinite().all(-1)]")
    target = dtype or (torch.float32 if x.dtype == torch.float64 else x.dtype)
    if x.dtype == torch.float64 != target:
        _warn_of_narrowing()
    return x.to(device=device or x.device, dtype=target)


@functools.cache  # once in a process: Python forgets what it has shown whenever a library changes its filters
def _warn_of_narrowing() -> None:
    """Warn that digits of float64 are lost."""
    warnings.warn(NARROWED, stacklevel=1)


def _to_tensor(name: str, value: Any, shape: str) -> "Tensor":
    """Return a tensor or numpy array of floating-point numbers as a tensor. Raises: ConfigError for anything else."""
    import numpy as np
    import torch

    if not isinstance(value, torch.Tensor | np.ndarray):
        problem = f"must be a tensor or a numpy array of shape {shape}"
        is_list = isinstance(value, list | tuple)
        fix = f"torch.tensor({name})" if is_list else "give a tensor, an array, or what held_out() of a stream returns"
        raise ConfigError(name, describe(value), problem, fix)
    is_float = value.is_floating_point() if isinstance(value, torch.Tensor) else value.dtype.kind == "f"
    if not is_float:
        problem = f"must be activations, floating-point numbers of shape {shape}, not token ids or flags"
        raise ConfigError(name, str(value.dtype).removeprefix("torch."), problem, "give activations of the SAE's hook")
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise ConfigError(name, value.layout, "must be a dense tensor", f"{name}.to_dense()")
        return value.detach()
    native = value.dtype if value.dtype.itemsize <= 8 else np.float64  # torch has no longer floats
    array = np.require(value, np.dtype(native).newbyteorder("="), ["C", "W"])
    return torch.from_numpy(array)


def _require_shape(name: str, x: "Tensor", width: int | None, shape: str, width_of: str, is_matrix: bool) -> None:
    """Check the shape of activations. Raises: ConfigError that shows it."""
    if (x.ndim == 2 or (x.ndim > 0 and not is_matrix)) and width in (None, x.shape[-1]):
        return
    problem = f"the shape must be {shape}" + ("" if width is None else f", where {width} is {width_of}")
    fix = "give what `encode` returns" if name == "latents" else "give raw activations of the SAE's hook"
    if is_matrix and x.ndim > 2:
        fix = f"{name}.reshape(-1, {x.shape[-1]}), leaving out BOS, whose activations are unlike the others"
    elif is_matrix and x.ndim == 1:
        fix = f"{name}[None] for a single activation"
    raise ConfigError(name, tuple(x.shape), problem, fix)


def to_latents(latents: Any, count: int) -> "Tensor":
    """Return numbers of latents that a caller gives, in a list, tensor or array, as a tensor (A,); None is all `count`.

    Raises: ConfigError if they are not whole numbers below `count`, or none.
    """
    import torch

    if latents is None:
        return torch.arange(count)
    listed = to_plain(latents)
    if not isinstance(listed, list | tuple | range) or not listed or any(type(each) is not int for each in listed):
        problem = "must be the numbers of the latents, a list or tensor of whole numbers"
        raise ConfigError("latents", describe(latents), problem, "mask.nonzero().flatten(), if it is a mask")
    for latent in listed:
        require_whole("latents", latent, 0, count - 1, "the last latent, ")
    return torch.tensor(listed)
