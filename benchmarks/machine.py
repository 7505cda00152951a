"""Describes the machine that the numbers were measured on."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_load() -> float:
    """Return the load: the mean number of runnable processes over the last minute."""
    return os.getloadavg()[0]


def find_gpu() -> str | None:
    """Return the name of the GPU that torch uses; None if it finds none."""
    return _read_output(sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())")


def describe(device: str) -> dict[str, Any]:
    """Return the hardware. `name` names the results: the GPU if the benchmark runs on it, else the CPU."""
    gpu = find_gpu() if device == "cuda" else None
    return {
        "name": gpu or _cpu(),
        "cpu": _cpu(),
        "gpu": gpu,
        "cores": count_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return _read_output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()


def _read_output(*command: str) -> str | None:
    """Return what the command prints; None if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
