"""Checks what the project does on a CUDA GPU, in about five minutes: is it right, the same to the byte, and how fast.

    python benchmarks/gpu_check.py                                    # results/<card>-check.md
    python benchmarks/gpu_check.py --device cpu --small --out /tmp/x  # a rehearsal on any machine
    python benchmarks/gpu_check.py --only steps,sweep

A part that fails costs no other part. Results are written after every part.
"""

import argparse
import datetime
import functools
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import torch
from gpu_parts import Check, Rows, check_bytes, profile_steps, time_steps
from gpu_systems import run_sweep, run_tests, time_language_model, time_sparsify
from plan import PROJECT

from sae_sweeps.runtime.files import write_json, write_text
from sae_sweeps.runtime.provenance import provenance

PARTS: dict[str, Callable[[Check], Rows]] = {
    "bytes": check_bytes,
    "steps": time_steps,
    "profile": profile_steps,
    "model": time_language_model,
    "sparsify": time_sparsify,
    "tests": run_tests,
    "sweep": run_sweep,
}


def describe(device: str) -> dict[str, Any]:
    """Return hardware, versions and date, and what a copy and a large product reach."""
    found: dict[str, Any] = {"date": str(datetime.date.today()), **machine.describe(device)}
    found |= {"torch": torch.__version__, "python": sys.version.split()[0], "commit": provenance().get("commit")}
    if device != "cpu":
        memory = torch.empty(2**31, dtype=torch.uint8, device=device)
        target = torch.empty_like(memory)
        found["copy, TB/s"] = 2 * memory.numel() / _time_once(lambda: target.copy_(memory)) / 1e12
        for dtype in (torch.float32, torch.bfloat16):
            square = torch.randn(8192, 8192, device=device, dtype=dtype)
            seconds = _time_once(functools.partial(torch.mm, square, square))
            found[f"product of 8192 in {str(dtype)[6:]}, TFLOP/s"] = 2 * 8192**3 / seconds / 1e12
    return found


def _time_once(call: Callable[[], Any], count: int = 10) -> float:
    """Return the mean seconds of a call on a GPU."""
    call()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(count):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / count


def to_markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown: the machine, and a table for each part."""
    about = report["machine"]
    lines = [f"# Check on {about['name']}", "", *(f"- {key}: {_text(value)}" for key, value in about.items()), ""]
    for name, part in report["parts"].items():
        lines += [f"## {name}: {(PARTS[name].__doc__ or '').splitlines()[0]}", "", f"{part['seconds']:.0f} s", ""]
        if "error" in part:
            lines += ["Failed:", "", "    " + part["error"].replace("\n", "\n    "), ""]
            continue
        columns = list(dict.fromkeys(column for row in part["rows"] for column in row))
        lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(_text(row.get(column, "")) for column in columns) + " |" for row in part["rows"]]
        lines.append("")
    return "\n".join(lines)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")


def main() -> None:
    """Run the parts, print their tables and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PROJECT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run, separated by commas")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="at a small size, as a rehearsal")
    options = parser.parse_args()
    unknown = [name for name in options.only.split(",") if name not in PARTS]
    if unknown:
        parser.error(f"--only: no part is called {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is available; --device cpu --small rehearses the check")
    report: dict[str, Any] = {"machine": describe(options.device), "parts": {}}
    stem = re.sub("[^a-z0-9]+", "-", report["machine"]["name"].lower()).strip("-") + "-check"
    options.out.mkdir(parents=True, exist_ok=True)
    logs = options.out / f"{stem}-logs"
    logs.mkdir(exist_ok=True)
    for name in options.only.split(","):
        began = time.perf_counter()
        try:
            part: dict[str, Any] = {"rows": PARTS[name](Check(options.device, options.small, logs))}
        except Exception:
            part = {"error": traceback.format_exc(limit=-3)}
        report["parts"][name] = part | {"seconds": time.perf_counter() - began}
        print(f"[{name}: {report['parts'][name]['seconds']:.0f} s]", flush=True)
        write_json(options.out / f"{stem}.json", report)
        write_text(options.out / f"{stem}.md", to_markdown(report))
        if options.device == "cuda":
            torch.cuda.empty_cache()
    print(to_markdown(report))


if __name__ == "__main__":
    main()
