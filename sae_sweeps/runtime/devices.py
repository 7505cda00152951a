"""Devices: bfloat16 support found without torch, and the device of a `device` setting (torch is imported late)."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sae_sweeps.runtime.errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

NATIVE = {"avx512_bf16", "amx_bf16"}  # x86: instructions that multiply bfloat16
CPU, GPU_DRIVER = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/version")


def resolve_dtype(dtype: str, device: str) -> str:
    """What `model.dtype` is on this machine: `auto` is settled before points are named, for results differ by it."""
    return native_dtype(device) if dtype == "auto" else dtype


@functools.cache
def native_dtype(device: str) -> str:
    """`bfloat16` where the device (auto, cpu, cuda, cuda:N) has instructions for it, else `float32`."""
    if device.startswith("cuda") or (device == "auto" and GPU_DRIVER.exists()):
        return "bfloat16"
    try:
        lines = CPU.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return "float32"
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return "bfloat16" if NATIVE & set(flags) else "float32"


def choose_device(setting: str) -> "torch.device":
    """Return the torch device of `device`: `auto` takes CUDA if there is one, else the CPU.

    Raises: ConfigError if the device is not there.
    """
    import torch

    if setting == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    try:
        torch.empty(1, device=setting)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError("device", setting, f"cannot be used ({first_line(error)})", "device=auto") from None
    return torch.device(setting)


def describe_unused_gpu(device: "torch.device") -> str | None:
    """What is to be said, in a few words, where a process has a GPU and does not use it."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if device.type == "cuda" or given in ("", "-1", "NoDevFiles"):
        return None
    return f"on the {device.type.upper()}, not its GPU"


def require_precision(precision: str, device: "torch.device") -> None:
    """Raises: ConfigError if the device has no such precision."""
    if precision == "tf32" and device.type != "cuda":
        fix = "training.precision=float32 or bfloat16"
        raise ConfigError("training.precision", precision, "needs a CUDA device", fix)


def device_name(device: "torch.device") -> str:
    """Return the name under which calibration.json keeps the device's speed."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()} with {torch.get_num_threads()} threads"
