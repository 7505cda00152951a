"""Times whole sweeps through `launch.py`: in one command, and with one command per point."""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plan import PROJECT, Sizes, sweep_points
from processes import Ended, Progress, run

ONE, EACH = "one command", "a command each"
# total and parts of the line that tasks/train.py logs for each pack
PARTS = re.compile(r"([\d.]+)\s+s\s+for\s+(?:the\s+)?(activations|training\s+steps|evaluation)")
TOTAL = re.compile(r"points?\s+in\s+([\d.]+)\s+s:")
STEPS = "points' own steps"
KEYS = {"training steps": STEPS}  # part in the log -> key in the results, which older results have too


def time_sweeps(sizes: Sizes, device: str, threads: int, timeout: float) -> list[dict[str, Any]]:
    """Return time and memory of each sweep, run both ways. `timeout`: seconds per point."""
    points = sweep_points(sizes.sweep_dict_sizes)[: max(sizes.sweep_points)]
    progress = Progress([*(1 + 0.5 * count for count in sizes.sweep_points), *(1.5 for _ in points)])
    found = []
    for count in sizes.sweep_points:
        ended = launch(["-m"], points[:count], sizes, device, threads, timeout * count)
        row = summarise(count, ONE, [ended], ended.output + ended.errors)
        progress.report(f"{count} {'point' if count == 1 else 'points'} in {ONE}: {format_row(row)}")
        found.append(row)
    commands = []
    for point in points:
        commands.append(launch([], [point], sizes, device, threads, timeout))
        name = " ".join(str(value) for value in point.values())
        progress.report(f"{name} in a command of its own: {format_row(summarise(1, EACH, commands[-1:]))}")
    found += [summarise(count, EACH, commands[:count]) for count in sizes.sweep_points]
    return found


def launch(
    flags: Sequence[str], points: Sequence[dict[str, Any]], sizes: Sizes, device: str, threads: int, timeout: float
) -> Ended:
    """Run one command for all these points, as a user would write it."""
    with tempfile.TemporaryDirectory() as folder:
        values = {key: list(dict.fromkeys(str(point[key]) for point in points)) for key in points[0]}
        swept = [f"{key}={','.join(choices)}" for key, choices in values.items()]
        settings = [*sizes.sweep_settings, "tracking=off", f"output_root={Path(folder).resolve()}", f"device={device}"]
        command = [sys.executable, str(PROJECT / "launch.py"), *flags, *swept, *settings]
        return run(command, timeout, {"OMP_NUM_THREADS": str(threads)})


def summarise(points: int, how: str, commands: Sequence[Ended], log: str = "") -> dict[str, Any]:
    """Return a row of the table. `inside` holds the times of the packs that launch.py reports in `log`."""
    row: dict[str, Any] = {"points": points, "how": how}
    for ended in commands:
        if ended.failure:
            return row | {"failed": ended.failure, "error": ended.last_error_line}
    row["seconds"] = sum(ended.seconds for ended in commands)
    row["peak_bytes"] = max(ended.peak_bytes for ended in commands)
    if totals := TOTAL.findall(log):
        row["inside"] = {"total": sum(map(float, totals))}
        for seconds, part in PARTS.findall(log):
            part = " ".join(part.split())
            part = KEYS.get(part, part)
            row["inside"][part] = row["inside"].get(part, 0.0) + float(seconds)
    return row


def format_row(row: dict[str, Any]) -> str:
    """Return time and memory of a row, or why it failed."""
    if "failed" in row:
        return f"failed ({row['failed']}) {row['error']}"
    return f"{row['seconds']:.1f} s, {row['peak_bytes'] / 2**20:.0f} MiB"
