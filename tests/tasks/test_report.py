"""Task `report`, and the page at the end of a command: its path, its contents, and when it is not written."""

import logging
import os
from pathlib import Path

import pytest
from filelock import FileLock

from sae_sweeps.report import loaded
from sae_sweeps.runtime import files
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import DONE, FAILED, LOCK, QUEUED, RUNNING, State
from sae_sweeps.sweep.sweep_state import SweepStates
from sae_sweeps.tasks import report
from tests.conftest import composed
from tests.report.conftest import library  # noqa: F401  for these tests too
from tests.report.made import put, some_metrics
from tests.report.reading import Page
from tests.tasks.conftest import contents

OLD = "the page of an earlier command"


@pytest.fixture
def sweeps(tmp_path) -> dict[str, Sweep]:
    """Sweep `a` with a failed point, and sweep `b`. A point of each has the same name."""
    found = {name: Sweep(tmp_path / "outputs" / name) for name in ("a", "b")}
    for number, sweep in enumerate(found.values()):
        put(sweep, "same", "k=2", metrics=some_metrics(number))
    put(found["a"], "broken", "k=3", state=FAILED, reason="the loss is nan")
    return found


def shown(path: Path | str) -> Page:
    return Page(Path(path).read_text(encoding="utf-8"))


def folders(page: Page) -> list[tuple[str, str, str]]:
    return [(row["sweep"], row["folder"], row["state"]) for row in page.data["points"]]


def refresh(sweep: Sweep, caplog) -> list[str]:
    """Write the page as at the end of a command. Returns the warnings."""
    with caplog.at_level(logging.WARNING):
        report.refresh(sweep, composed())
    return [record.getMessage() for record in caplog.records]


def test_a_sweep_ends_by_writing_its_page_and_printing_its_path(tmp_path, tiny, command):
    ran = command("-m", *tiny, "k=3,4", "name=new")
    assert ran.code == 0, ran.err
    assert "report: outputs/new/report.html" in ran.out
    page = shown("outputs/new/report.html")
    assert {state for *_, state in folders(page)} == {"done"}
    assert len(folders(page)) == 2
    assert page.data["explorer"] is None
    assert list(Path("outputs").glob("**/*.html")) == [Path("outputs/new/report.html")]


def test_a_page_that_cannot_be_written_does_not_fail_the_sweep(tmp_path, tiny, command):
    Path("outputs/new/report.html").mkdir(parents=True)
    ran = command(*tiny, "name=new")
    assert ran.code == 0, ran.err
    assert "report.html was not written (" in ran.out
    assert "python launch.py task=report name=new" in ran.out
    assert "report: " not in ran.out
    assert not list(Path("outputs/new").glob(".report*"))


def test_the_task_prints_the_points_and_writes_csv_and_page(sweeps, command):
    ran = command("task=report", "name=a")
    assert ran.code == 0, ran.err
    assert "FAILED broken: the loss is nan" in ran.out
    assert "NMSE" in ran.out
    assert "report: outputs/a/report.html" in ran.out
    assert (sweeps["a"].folder / "results.csv").read_text().count("\n") == 2
    page = shown("outputs/a/report.html")
    assert folders(page) == [("a", "same", "done"), ("a", "broken", "failed")]
    assert page.find_id("failures").text == "broken: failed: the loss is nan"


@pytest.mark.parametrize("many", [[], ["-m"], ["--multirun"]])
def test_the_page_on_several_sweeps_is_written_next_to_them(sweeps, command, many):
    before = contents(sweeps["b"].folder)
    ran = command("task=report", "name=a,b", *many)
    assert ran.code == 0, ran.err
    assert ran.out.count("report: ") == 1
    assert "report: outputs/report-a+b.html" in ran.out
    page = shown("outputs/report-a+b.html")
    assert folders(page) == [("a", "same", "done"), ("a", "broken", "failed"), ("b", "same", "done")]
    assert page.data["title"] == "SAE sweeps a, b: 3 points, layer 3 of embedded/model"
    assert [row["label"].split(":")[0] for row in page.data["points"]] == ["a", "a", "b"]
    metrics = [row["metrics"] for row in page.data["points"]]
    assert (metrics[0], metrics[2]) == (some_metrics(0), some_metrics(1))
    assert sorted(path.name for path in Path("outputs").iterdir()) == ["a", "b", "report-a+b.html"]
    assert {name: data for name, data in contents(sweeps["b"].folder).items() if name in before} == before


def test_a_sweep_named_twice_is_reported_once(sweeps, command):
    assert command("task=report", "name=a,a").code == 0
    assert len(folders(shown("outputs/a/report.html"))) == 2
    assert not list(Path("outputs").glob("report-*"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["name=a,c"], "error: name=c: no such sweep in outputs; the sweeps there are: a, b. Fix: name=a"),
        (["name=a", "format=pdf"], "error: format=pdf: must be one of html, md. Fix: format=html"),
        (
            ["name=a", "explorer_mib=0"],
            "error: explorer_mib=0.0: must be greater than 0. Fix: give explorer_mib a positive number",
        ),
    ],
)
@pytest.mark.parametrize("many", [[], ["-m"]])
def test_bad_settings_are_refused_in_one_line_and_nothing_is_written(sweeps, command, words, line, many):
    before = contents(Path("outputs"))
    ran = command("task=report", *words, *many)
    assert (ran.code, ran.err.splitlines()) == (1, [line])
    assert contents(Path("outputs")) == before


def test_only_markdown_is_printed(sweeps, command):
    before = contents(Path("outputs"))
    ran = command("task=report", "name=a,b", "format=md")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split("|")[1].strip() for line in ran.out.splitlines()] == [
        "SAE", "---", "b: BatchTopK 3072, k 2", "a: BatchTopK 3072, k 2", "a: BatchTopK 3072, k 3 (failed)"
    ]  # fmt: skip
    assert contents(Path("outputs")) == before


def test_a_multirun_prints_only_markdown(sweeps, command):
    ran = command("-m", "task=report", "name=a", "format=md")
    assert len(ran.out.splitlines()) == 4
    assert all(line.startswith("|") for line in ran.out.splitlines())


@pytest.mark.parametrize("state", [RUNNING, QUEUED])
def test_no_page_is_written_while_a_point_is_queued_or_running(sweeps, caplog, monkeypatch, state):
    sweep = sweeps["a"]
    folder = put(sweep, "other", "k=5", state=RUNNING)
    (sweep.folder / "report.html").write_text(OLD)
    if state == QUEUED:
        seen = {"same": State(DONE), "broken": State(FAILED), "other": State(QUEUED)}
        monkeypatch.setattr(loaded, "read_states", lambda sweep: SweepStates(seen, sweep.read()))
    with FileLock(folder / LOCK):
        assert refresh(sweep, caplog) == []
    assert (sweep.folder / "report.html").read_text() == OLD


def test_waiting_and_interrupted_points_do_not_prevent_the_page(sweeps, caplog):
    put(sweeps["a"], "killed", "k=5", state=RUNNING)
    put(sweeps["a"], "waits", "k=6")
    assert refresh(sweeps["a"], caplog) == []
    states = [state for *_, state in folders(shown(sweeps["a"].folder / "report.html"))]
    assert states == ["done", "failed", "interrupted", "waiting"]


@pytest.mark.parametrize("where", ["built", "written"])
def test_an_error_of_the_page_is_a_warning_and_keeps_the_earlier_page(sweeps, caplog, monkeypatch, where):
    def broken(*arguments):
        raise OSError(28, "No space left on device")

    path = sweeps["a"].folder / "report.html"
    path.write_text(OLD)
    monkeypatch.setattr(*((report, "build_page") if where == "built" else (files.os, "replace")), broken)
    (warning,) = refresh(sweeps["a"], caplog)
    assert warning.startswith("report.html was not written (")
    assert "the disk is full" in warning
    assert path.read_text() == OLD
    assert not list(path.parent.glob(".report*"))


def test_the_earlier_page_is_replaced_by_a_complete_one(sweeps, caplog, monkeypatch):
    path, replace, seen = sweeps["a"].folder / "report.html", os.replace, []

    def record_and_replace(source, target):
        if Path(target) == path:
            seen.append((path.read_text(), shown(source).html))
        replace(source, target)

    path.write_text(OLD)
    monkeypatch.setattr(files.os, "replace", record_and_replace)
    assert refresh(sweeps["a"], caplog) == []
    ((before, new),) = seen
    assert before == OLD
    assert new.rstrip().endswith("</html>")
    assert path.read_text() == new


def test_the_page_lists_follow_up_tasks_that_failed(sweeps, caplog):
    outcomes = {"stitch": {"state": "failed", "reason": "it <b>broke</b>", "job": None}}
    sweeps["b"].update(lambda known: known.update(followed=outcomes))
    refresh(sweeps["b"], caplog)
    assert shown(sweeps["b"].folder / "report.html").find_id("failures").text == "b: stitch: failed: it <b>broke</b>"


def test_the_end_of_a_command_reads_sweep_json_once(sweeps, monkeypatch):
    calls, read = [], Sweep.read
    monkeypatch.setattr(Sweep, "read", lambda sweep: calls.append(sweep.name) or read(sweep))
    found = loaded.load_sweep(sweeps["a"])
    report.show(found, ["same"], {}, 1.0, composed("tracking=off"))
    assert calls == ["a"]
    assert (sweeps["a"].folder / "results.csv").exists()
    assert (sweeps["a"].folder / "report.html").exists()


@pytest.mark.parametrize("show", ["show", "run"])
def test_the_files_are_written_before_the_tables_are_shown(sweeps, monkeypatch, show):
    class UnshownError(Exception):
        pass

    def fail(*renderables, **options):
        raise UnshownError

    monkeypatch.setattr(report.console, "print", fail)
    sweep, config = sweeps["a"], composed("tracking=off")
    found = loaded.load_sweep(sweep)
    with pytest.raises(UnshownError):
        report.run(sweep, config) if show == "run" else report.show(found, ["same"], {}, 1.0, config)
    assert {"results.csv", "report.html"} <= {file.name for file in sweep.folder.iterdir()}
