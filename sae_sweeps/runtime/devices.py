"""Detects bfloat16 support without importing torch, and resolves the setting `device` (imports torch when called)."""

import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sae_sweeps.runtime.errors import ConfigError, first_line

if TYPE_CHECKING:
    import torch

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # x86 CPU flags of instructions that multiply bfloat16
# How a thread of torch waits for the others' work: first it asks 1000 times, a few microseconds, then it sleeps. To
# sleep at once takes up to a third more time in small steps, and to ask on and on several times as much where other
# processes use the cores. GOMP_SPINCOUNT is of GNU's OpenMP; others read the first.
THREAD_WAITS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
CPU_INFO, GPU_DRIVER = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/version")


def set_thread_waits() -> None:
    """Set THREAD_WAITS in the environment, unless OMP_WAIT_POLICY is set. Call it before torch is imported."""
    if not os.environ.get("OMP_WAIT_POLICY"):
        os.environ.update(THREAD_WAITS)


def resolve_dtype(dtype: str, device: str) -> str:
    """Return the setting `model.dtype`, with `auto` replaced by the dtype that suits the device in this machine.

    Call this before naming a point: the dtype changes results, so the name depends on it.
    """
    return native_dtype(device) if dtype == "auto" else dtype


def resolve_reader(reader: str, device: str) -> str:
    """Return the setting `model.reader`, with `auto` replaced by what it is on a device (auto, cpu, cuda, cuda:N)."""
    if reader != "auto":
        return reader
    return "transformers" if _is_gpu(device) else "transformer_lens"


def _is_gpu(device: str) -> bool:
    """Return whether a device (auto, cpu, cuda, cuda:N) is a GPU, without torch."""
    return device.startswith("cuda") or (device == "auto" and GPU_DRIVER.exists())


@functools.cache
def native_dtype(device: str) -> str:
    """Return "bfloat16" if the device (auto, cpu, cuda, cuda:N) has bfloat16 instructions, else "float32"."""
    if _is_gpu(device):
        return "bfloat16"
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return "float32"
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return "bfloat16" if BFLOAT16_FLAGS & set(flags) else "float32"


def choose_device(setting: str) -> "torch.device":
    """Return the torch device for the setting `device`; `auto` is CUDA if available, else the CPU.

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
    device = torch.device(setting)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # kernels and graphs run on the current device
    return device


def describe_unused_gpu(device: "torch.device") -> str | None:
    """Return "on the CPU, not its GPU" if CUDA_VISIBLE_DEVICES lists a GPU but `device` is not CUDA; else None."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if device.type == "cuda" or visible in ("", "-1", "NoDevFiles"):
        return None
    return f"on the {device.type.upper()}, not its GPU"


def require_precision(precision: str, device: "torch.device") -> None:
    """Check that the device supports the value of training.precision. Raises: ConfigError if it does not."""
    if precision == "tf32" and device.type != "cuda":
        fix = "training.precision=float32, or training.precision=bfloat16"
        raise ConfigError("training.precision", precision, "needs a CUDA device", fix)


def resolve_precision(precision: str, device: "torch.device") -> str:
    """Return the value of training.precision, with `auto` replaced by what is fast on the device.

    That is bfloat16 where the device has instructions for it, else float32. The result of training is the same.
    """
    import torch

    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    return native_dtype("cpu")


def wants_kernels() -> bool:
    """Return whether training on a GPU is to use this project's Triton kernels: with SAE_SWEEPS_KERNELS=1."""
    return os.environ.get("SAE_SWEEPS_KERNELS") == "1"


def read_clock(device: "torch.device") -> float:
    """Return the seconds of time.perf_counter once the device has done all work that it was given.

    A GPU works on after a call has returned, so a clock that is read at once shows the time of the calls alone.
    """
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def device_name(device: "torch.device") -> str:
    """Return the key of a device in calibration.json: the GPU's name, or the CPU with the number of threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()} with {torch.get_num_threads()} threads"
