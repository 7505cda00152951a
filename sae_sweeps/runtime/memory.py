"""Measures free memory, of a GPU or of this machine within its control groups' limits; detects when it is used up."""

from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> float:
    """Return the number of bytes that this process can still allocate on `device`."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([psutil.virtual_memory().available, *_list_cgroup_free()])


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch or Python means that the memory of the GPU or of this machine is used up."""
    is_named = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return is_named or any(words in str(error) for words in ("out of memory", "can't allocate memory"))


def _list_cgroup_free() -> list[float]:
    """Return the free bytes of each control group (cgroup v2) that has a memory limit and contains this process."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []  # not Linux
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = CGROUPS / own.lstrip("/")
    found = []
    for level in (folder, *folder.parents):
        if level == CGROUPS.parent:
            break
        try:
            limit = float((level / "memory.max").read_text())
            used = float((level / "memory.current").read_text())
            statistics = dict(line.split() for line in (level / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue  # no such file, or "max"
        found.append(limit - used + float(statistics.get("inactive_file", 0)))  # cached file pages are reclaimable
    return found
