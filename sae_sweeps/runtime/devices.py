"""Devices: detects bfloat16 support without torch, and resolves the `device` setting (imports torch when called)."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sae_sweeps.runtime.errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # x86: instructions that multiply bfloat16
CPU_INFO, GPU_DRIVER = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/version")


def resolve_dtype(dtype: str, device: str) -> str:
    """Return `model.dtype` with `auto` resolved for this machine.

    This happens before points are named: the dtype changes results, so it is part of the name.
    """
    return native_dtype(device) if dtype == "auto" else dtype


@functools.cache
def native_dtype(device: str) -> str:
    """Return `bfloat16` if the device (auto, cpu, cuda, cuda:N) has instructions for it, else `float32`."""
    if device.startswith("cuda") or (device == "auto" and GPU_DRIVER.exists()):
        return "bfloat16"
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return "float32"
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return "bfloat16" if BFLOAT16_FLAGS & set(flags) else "float32"


def choose_device(setting: str) -> "torch.device":
    """Return the torch device that `device` names; `auto` is CUDA if available, else the CPU.

    Raises: ConfigError if the device cannot be used.
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
    """Return a phrase for logs and the status if the process has been given a GPU but runs elsewhere, else None."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if device.type == "cuda" or visible in ("", "-1", "NoDevFiles"):
        return None
    return f"on the {device.type.upper()}, not its GPU"


def require_precision(precision: str, device: "torch.device") -> None:
    """Check `training.precision`. Raises: ConfigError if the device does not support it."""
    if precision == "tf32" and device.type != "cuda":
        fix = "training.precision=float32 or bfloat16"
        raise ConfigError("training.precision", precision, "needs a CUDA device", fix)


def device_name(device: "torch.device") -> str:
    """Return the name under which calibration.json keeps the device's speed."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()} with {torch.get_num_threads()} threads"
