"""W&B servers that are down, hang, refuse or are broken: what is kept and which warnings are logged."""

import http.server
import io
import json
import logging
import queue
import shutil
import threading
import time
from types import SimpleNamespace

import pytest

from sae_sweeps.config import TrackingConfig
from sae_sweeps.tracking import background_sync
from sae_sweeps.tracking.background_sync import Follower, Uploads
from sae_sweeps.tracking.run import finish_uploads, start_run
from sae_sweeps.tracking.wandb_sync import (
    Upload,
    describe_addresses,
    is_incomplete,
    is_uploaded,
    offline_runs,
    unreachable_reason,
)
from tests.tracking.test_run import records

KEY = "local" + 40 * "0"


@pytest.fixture
def server():
    """A function that starts a server and returns its address; it answers every request with `status`, or never."""
    ended, servers = threading.Event(), []

    def start(status: int | None) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                if status is None:
                    ended.wait(60)
                    return
                self.rfile.read(int(self.headers.get("content-length") or 0))
                body = json.dumps({"errors": [{"message": "you may not"}]}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *words):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    ended.set()
    for started in servers:
        started.shutdown()
        started.server_close()


@pytest.fixture
def with_key(monkeypatch):
    """W&B with an API key, in a process that has not used it yet."""
    import wandb

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    wandb.teardown()
    yield
    wandb.teardown()


def write_run(folder, uploads):
    """Log and finish a run with tracking=online. Returns the folders of its offline runs."""
    folder.mkdir(parents=True)
    options = {"group": "g", "job_type": "train", "config": {}}
    run = start_run(TrackingConfig(mode="online"), folder, **options, uploads=uploads)
    run.log({"tokens": 1, "train/loss": 1.0})
    run.finish({"eval/nmse": 0.5})
    records(folder)  # waits until it is on disk
    return offline_runs(folder)


def test_a_server_is_reachable_if_it_answers_below_500(server):
    assert unreachable_reason(server(200)) is None
    assert unreachable_reason(server(404)) is None
    broken, hangs = server(503), server(None)
    assert unreachable_reason(broken) == f"{broken} answers 503 Service Unavailable"
    assert unreachable_reason(hangs, 0.2) == f"{hangs} does not answer"
    assert "cannot be reached (" in unreachable_reason("http://127.0.0.1:9")


@pytest.mark.parametrize("status", [None, 401, 500, "down"])
def test_a_useless_server_costs_seconds_and_two_warnings(tmp_path, server, with_key, monkeypatch, caplog, status):
    address = "http://127.0.0.1:9" if status == "down" else server(status)
    monkeypatch.setenv("WANDB_BASE_URL", address)
    caplog.set_level(logging.WARNING)
    began = time.monotonic()
    uploads = Uploads()
    runs = [run for name in ("a", "b") for run in write_run(tmp_path / "g" / name, uploads)]
    assert time.monotonic() - began < 20  # W&B itself would wait 90 s per run
    finish_uploads(uploads)
    assert time.monotonic() - began < 40
    messages = [record.getMessage() for record in caplog.records]
    problem = {None: "does not answer", 401: "you may not", 500: "answers 500", "down": "cannot be reached"}[status]
    command = f"python launch.py task=sync name=g output_root={tmp_path}"
    assert problem in messages[0]
    assert messages[0].endswith(
        f". Training continues and the runs are kept on this disk. To upload them later: {command}"
    )
    assert messages[1:] == [f"W&B: 2 of 2 runs were not uploaded. To upload them: {command}"]
    assert not any(is_uploaded(run) for run in runs)


def test_a_missing_api_key_is_named_in_the_warning(tmp_path, server, with_key, monkeypatch, caplog):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", server(200))
    uploads = Uploads()
    write_run(tmp_path / "a", uploads)
    finish_uploads(uploads)
    assert "No API key configured" in caplog.text


class FakeUpload:
    """Stands for W&B's command: marks every run as uploaded except the one named "refused"."""

    started: list

    def __init__(self, runs, live=False):
        self.runs, self.addresses = runs, [f"http://w/me/p/runs/{run.name}" for run in runs]
        FakeUpload.started.append(([run.name for run in runs], live))
        for run in runs:
            if run.name != "refused":
                (run / "run.wandb.synced").touch()

    def wait(self, seconds):
        return True

    def close(self):
        return None if all(map(is_uploaded, self.runs)) else "the server refused it"


@pytest.fixture
def followed(tmp_path, monkeypatch, capsys):
    """A function that follows runs to their end; returns the started uploads and the printed lines."""
    monkeypatch.setattr(background_sync, "Upload", FakeUpload)
    monkeypatch.setattr(background_sync, "BATCH_SECONDS", 0.0)
    FakeUpload.started = []

    def follow(*names):
        lines = queue.Queue()
        for name in names:
            (tmp_path / name).mkdir()
            lines.put(str(tmp_path / name))
        lines.put(None)
        Follower("http://127.0.0.1:9").follow(lines)
        return FakeUpload.started, capsys.readouterr().out.splitlines()

    return follow


def test_runs_are_uploaded_while_they_are_written(followed):
    started, printed = followed("a", "b")
    assert sorted(name for names, live in started for name in names if live) == ["a", "b"]
    assert sorted(printed) == ["at http://w/me/p/runs/a", "at http://w/me/p/runs/b"]


def test_a_problem_is_printed_once(followed):
    started, printed = followed("refused", "a")
    assert [line for line in printed if not line.startswith("at ")] == ["the server refused it"]
    assert sum("refused" in names for names, _ in started) <= 2  # retried once at the end


def test_an_outage_is_printed_once_and_taken_back_when_it_ends(monkeypatch, capsys):
    """A single failed check is none: the server may only be busy."""
    answers = iter([None, "slow", None, "down", "down", "down", None, None, "down", "down", None])
    monkeypatch.setattr(background_sync, "unreachable_reason", lambda server: next(answers))
    monkeypatch.setattr(background_sync, "CHECK_SECONDS", 0.0)
    follower = Follower("http://127.0.0.1:9")
    follower._active.append(object())
    with pytest.raises(StopIteration):  # in the end
        follower._watch_server()
    assert capsys.readouterr().out.splitlines() == ["down", "answers again", "down", "answers again"]


def test_what_the_background_process_prints_is_logged(monkeypatch, caplog):
    """A problem once, that it has ended, and in the end where the runs are."""
    caplog.set_level(logging.INFO)
    lines = ["it is down", "at http://w/me/p/runs/1", "you may not", "answers again", "answers again", "it is down"]
    process = SimpleNamespace(stdin=io.StringIO(), stdout=iter(lines), wait=lambda seconds: 0)
    monkeypatch.setattr(background_sync.subprocess, "Popen", lambda *words, **options: process)
    uploader = background_sync.Uploader("http://w")
    uploader.finish()
    effect = "Training continues and the runs are kept on this disk. To upload them later: "
    warning = f"W&B: it is down. {effect}"
    again = "W&B: http://w answers again, and the runs are being uploaded"
    assert caplog.messages == [warning, again, warning, "W&B:  http://w/me/p/runs/1  project http://w/me/p"]
    assert describe_addresses([f"http://w/me/p/runs/{run}" for run in "abca"]) == "W&B:  http://w/me/p"
    assert describe_addresses([]) is None


def test_a_run_that_wandb_marked_after_an_error_is_not_uploaded(tmp_path, monkeypatch):
    """W&B 0.31 marks a run as synced even if the server refuses its history or an artifact."""
    complete, incomplete = (tmp_path / name for name in ("complete", "incomplete"))
    script = tmp_path / "wandb.py"
    script.write_text(
        "import json, os, pathlib, sys\n"
        "runs = [pathlib.Path(word) for word in sys.argv if '/' in word and pathlib.Path(word).is_dir()]\n"
        "logs = pathlib.Path(os.environ['WANDB_DIR'], 'wandb', 'logs')\n"
        "logs.mkdir(parents=True)\n"
        "for run in runs: (run / 'run.wandb.synced').touch()\n"
        "file = str(runs[0] / 'run.wandb')\n"
        "lines = [{'level': 'ERROR', 'msg': 'api: HTTP error', 'sync_path': str(runs[1] / 'run.wandb')},\n"
        "         {'level': 'ERROR+4', 'msg': 'filestream: fatal error: 403', 'sync_path': file}]\n"
        "(logs / 'debug-sync.1.log').write_text('\\n'.join(map(json.dumps, lines)) + '\\nnot json\\n')\n"
    )
    for run in (complete, incomplete):
        run.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    upload = Upload([incomplete, complete])
    assert upload.wait(30)
    assert upload.close() == "filestream: fatal error: 403"
    assert (is_uploaded(incomplete), is_uploaded(complete)) == (False, True)


def test_a_process_has_one_uploader_per_server(tmp_path, monkeypatch):
    created = []

    class FakeUploader:
        """Records the runs that it receives."""

        def __init__(self, server):
            self.server, self.runs, self.is_finished = server, [], False
            created.append(self)

        def add(self, run, hint):
            self.runs.append(run)

        def finish(self):
            self.is_finished = True

    monkeypatch.setattr(background_sync, "Uploader", FakeUploader)
    uploads = Uploads()
    for server, name in (("http://one", "a"), ("http://two", "b"), ("http://one", "c")):
        uploads.add(server, tmp_path / name, "task=sync")
    first, second = created
    assert (first.server, [run.name for run in first.runs]) == ("http://one", ["a", "c"])
    assert (second.server, [run.name for run in second.runs]) == ("http://two", ["b"])
    uploads.finish()
    assert first.is_finished
    assert second.is_finished
    uploads.add("http://one", tmp_path / "d", "task=sync")  # a new uploader, because the first has ended
    assert len(created) == 3


def test_an_upload_makes_the_folder_that_w_and_b_writes_a_summary_to(server, tmp_path, monkeypatch, with_key):
    monkeypatch.setenv("WANDB_BASE_URL", server(403))
    [run] = write_run(tmp_path / "point", Uploads())
    shutil.rmtree(run / "files")
    upload = Upload([run])
    assert (run / "files").is_dir()
    upload.close()


def test_a_service_that_another_process_has_begun_is_left_alone(server, tmp_path, monkeypatch, with_key):
    """W&B names it to child processes, such as a command that a notebook begins in another folder."""
    monkeypatch.setenv("WANDB_BASE_URL", server(403))
    monkeypatch.setenv("WANDB_SERVICE", "elsewhere")
    [run] = write_run(tmp_path / "point", Uploads())
    assert not is_incomplete(run)
    monkeypatch.setenv("WANDB_SERVICE", "elsewhere")
    upload = Upload([run])
    assert upload.wait(60)
    assert "you may not" in upload.close()
