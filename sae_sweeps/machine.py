"""What this machine computes natively, found without importing torch."""

import functools
from pathlib import Path

NATIVE = {"avx512_bf16", "amx_bf16"}  # x86: instructions that multiply bfloat16
CPU, GPU_DRIVER = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/version")


def dtype_here(dtype: str, device: str) -> str:
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
