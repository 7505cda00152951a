"""What the numbers were measured on."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float:
    """How many processes wanted to run, on average over the last minute."""
    return os.getloadavg()[0]


def describe(device: str) -> dict[str, Any]:
    """`name` is what the results are called by: the GPU, if it is what is measured, else the CPU."""
    gpu = _said(sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())") if device == "cuda" else None
    return {
        "name": gpu or _cpu(),
        "cpu": _cpu(),
        "gpu": gpu,
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
