"""Output that any terminal and any pipe can take."""

import os
import subprocess
import sys

import pytest

from sae_sweeps.runtime.console import PLAIN
from sae_sweeps.runtime.provenance import PROJECT

PRINT = """
import logging, sys
from sae_sweeps.runtime import console
from rich.table import Table
console.prepare_output()
table = Table(console.to_printable("mean ± deviation"), "curve")
table.add_row(console.to_printable("1.0 ± 0.5"), console.to_printable("▁▂█"))
console.console.print(table)
print("plain: ± → … ▁█ 日", "f\\udce9", flush=True)
print("error: é日", file=sys.stderr)
"""
ENCODINGS = ["ascii", "latin-1", "cp1252", "cp437", "koi8-r", "shift_jis"]


def run(program: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **environment}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, cwd=PROJECT)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_terminal_without_utf_8_gets_replacements_and_straight_columns(encoding):
    done = run(PRINT, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    *table, plain, byte = done.stdout.replace(b"f\xe9", b"\nfile").decode(encoding).splitlines()
    assert len({len(line.rstrip()) for line in table}) == 1
    assert plain.startswith("plain: ")
    assert byte == "file"
    assert done.stderr.startswith(b"error: ")


def test_a_name_that_is_no_text_is_printed_as_its_bytes_in_utf_8():
    done = run(PRINT, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0
    assert done.stdout.endswith("plain: ± → … ▁█ 日 f".encode() + b"\xe9\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_replacement_is_ascii(encoding):
    assert all(text.isascii() for text in PLAIN.values())
    done = run("from sae_sweeps.runtime.console import *; print(to_printable('▁▂▃▄▅▆▇█'))", PYTHONIOENCODING=encoding)
    assert done.stdout.split() == [b".:-=+*%#"]


CHATTER = """
import sys
from sae_sweeps.runtime import console
console.prepare_output()
for number in range(20000):
    {show}
print("ended", file=sys.{other})
"""


@pytest.mark.parametrize(
    ("closed", "show"),
    [
        ("stdout", "print(number)"),
        ("stdout", "print(number, flush=True)"),
        ("stdout", "console.console.print(number)"),
        ("stdout", "console.ConsoleHandler().handle(__import__('logging').makeLogRecord(dict(levelno=20, msg=1)))"),
        ("stderr", "print(number, file=sys.stderr)"),
    ],
)
def test_a_program_outlives_the_reader_of_its_output(closed, show):
    other = "stderr" if closed == "stdout" else "stdout"
    command = [sys.executable, "-c", CHATTER.format(show=show, other=other)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=PROJECT)
    gone, read = getattr(process, closed), getattr(process, other)
    gone.readline()
    gone.close()
    assert read.read() == b"ended\n"
    assert process.wait() == 0


@pytest.mark.parametrize("words", [["--help"], ["--info"], ["--cfg", "job"], ["model=nowhere", "k=0"]])
def test_a_command_ends_quietly_without_a_reader(words):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "launch.py", *words]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=PROJECT, text=True)
    os.close(write)
    assert done.returncode == ("k=0" in words), done.stderr
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr
