"""Writes the results of a benchmark that is a command of its own: a page, and its numbers beside it."""

import datetime
import re
from pathlib import Path
from typing import Any

import machine

from sae_sweeps.runtime.files import write_json, write_text
from sae_sweeps.runtime.provenance import provenance


def describe_run(threads: int) -> dict[str, Any]:
    """Return what is known of a benchmark on CPUs before it begins: date, machine, threads, load and versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe("cpu"),
        "threads": threads,
        "load": machine.read_load(),
        "provenance": provenance(),
    }


def format_origin(data: dict[str, Any]) -> str:
    """Return lines on when, where and with which versions a benchmark ran. `data`: has what `describe_run` returned"""
    where = f"{data['machine']['cpu']}, {data['threads']} threads, load at the start {data['load']:.1f}"
    return f"- {data['date']}, {where}\n{format_versions(data['provenance'])}"


def format_versions(origin: dict[str, Any]) -> str:
    """Return a line on torch's version and the commit. `origin`: what `provenance` returned"""
    changed = " with uncommitted changes" if origin["uncommitted_changes"] else ""
    return f"- torch {origin['packages']['torch']}, commit {(origin['commit'] or 'unknown')[:10]}{changed}"


def write_results(folder: Path, kind: str, data: dict[str, Any], page: str) -> None:
    """Write <machine>-<cores>-cores-<kind>.json and .md into a folder, and print where they are.

    data: the numbers, with the machine under "machine", as `machine.describe` returns it
    """
    file = find_results(folder, kind, data)
    write_json(file, data)
    write_text(file.with_suffix(".md"), page + "\n")
    print(f"written: {file.with_suffix('.md')}")


def find_results(folder: Path, kind: str, data: dict[str, Any]) -> Path:
    """Return the file of the numbers, which need not be there. The arguments are those of `write_results`."""
    about = data["machine"]
    name = re.sub(r"[^a-z0-9]+", "-", f"{about['name']}-{about['cores']}-cores-{kind}".lower()).strip("-")
    return folder / f"{name}.json"
