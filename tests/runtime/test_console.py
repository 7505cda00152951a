"""Output that any terminal and any pipe can take."""

import io
import logging
import os
import subprocess
import sys

import pytest
from rich.table import Table

from sae_sweeps.runtime import progress
from sae_sweeps.runtime.console import PLAIN, ConsoleHandler, console
from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.runtime.progress import SweepProgress

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


HOSTILE = "[red]a[/] [/nothing] :smile: \x1b[2J\x1b]0;title\x07 b\rc \u202ed"
SHOWN = "[red]a[/] [/nothing] :smile: \\x1b[2J\\x1b]0;title\\x07 b\\rc \\u202ed"


def test_names_of_strangers_are_shown_and_do_nothing_to_the_terminal(monkeypatch):
    monkeypatch.setattr(console, "_width", 200)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    with console.capture() as captured:
        console.print(HOSTILE, soft_wrap=True)
        console.print(table)
        ConsoleHandler().handle(logging.makeLogRecord({"levelno": logging.ERROR, "msg": HOSTILE}))
        SweepProgress(1).add_point(HOSTILE).show_stage("evaluating")
    assert captured.get().count(SHOWN) == 6
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(captured.get())


def test_bars_show_names_as_they_are(monkeypatch):
    file = io.StringIO()
    terminal = type(console)(file=file, force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(progress, "console", terminal)
    display = SweepProgress(2)
    with display.live():
        display.add_point(HOSTILE).show_stage("[b]c")
    assert SHOWN in file.getvalue()
    assert "[b]c" in file.getvalue()
