"""Servers of W&B that are down, hang, refuse or are broken, and what is kept and told of that."""

import http.server
import json
import logging
import queue
import threading
import time

import pytest

from sae_sweeps.config import TrackingConfig
from sae_sweeps.tracking import background_sync
from sae_sweeps.tracking import run as tracking
from sae_sweeps.tracking.background_sync import Follower
from sae_sweeps.tracking.run import finish_uploads, start_run
from sae_sweeps.tracking.wandb_sync import Upload, is_uploaded, offline_runs, unreachable_reason
from tests.tracking.test_run import records

KEY = "local" + 40 * "0"


@pytest.fixture
def server():
    """Begins a server whose every answer is `status`, or none at all; returns its address."""
    ended, servers = threading.Event(), []

    def begin(status: int | None) -> str:
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

    yield begin
    ended.set()
    for one in servers:
        one.shutdown()
        one.server_close()


@pytest.fixture
def with_key(monkeypatch):
    """W&B as somebody's who has a key, in a process that has not asked it anything yet."""
    import wandb

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(tracking, "_uploaders", {})
    wandb.teardown()
    yield
    wandb.teardown()


def a_run(folder, mode="offline"):
    folder.mkdir(parents=True)
    run = start_run(TrackingConfig(mode=mode), folder, group="g", job_type="train", config={})
    run.log({"tokens": 1, "train/loss": 1.0})
    run.finish({"eval/nmse": 0.5})
    records(folder)  # it is on disk
    return offline_runs(folder)


def test_a_server_is_had_if_it_answers_at_all(server):
    assert unreachable_reason(server(200)) is None
    assert unreachable_reason(server(404)) is None
    broken, hangs = server(503), server(None)
    assert unreachable_reason(broken) == f"{broken} answers 503 Service Unavailable"
    assert unreachable_reason(hangs, 0.2) == f"{hangs} does not answer"
    assert "cannot be reached (" in unreachable_reason("http://127.0.0.1:9")


@pytest.mark.parametrize("status", [None, 401, 500, "down"])
def test_a_server_that_is_of_no_use_takes_seconds_and_a_line(tmp_path, server, with_key, monkeypatch, caplog, status):
    address = "http://127.0.0.1:9" if status == "down" else server(status)
    monkeypatch.setenv("WANDB_BASE_URL", address)
    caplog.set_level(logging.WARNING)
    began = time.monotonic()
    runs = [run for name in ("a", "b") for run in a_run(tmp_path / "g" / name, "online")]
    assert time.monotonic() - began < 20  # and not the 90 s for each that W&B would wait
    finish_uploads()
    assert time.monotonic() - began < 40
    said = [record.getMessage() for record in caplog.records]
    what = {None: "does not answer", 401: "you may not", 500: "answers 500", "down": "cannot be reached"}[status]
    command = f"python launch.py task=sync name=g output_root={tmp_path}"
    assert what in said[0]
    assert said[0].endswith(f"Upload it later: {command}")
    assert said[1:] == [f"W&B: 2 of 2 runs are not uploaded: {command}"]
    assert not any(is_uploaded(run) for run in runs)


def test_without_a_key_the_line_says_so(tmp_path, server, with_key, monkeypatch, caplog):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", server(200))
    a_run(tmp_path / "a", "online")
    finish_uploads()
    assert "No API key configured" in caplog.text


class FakeUpload:
    """W&B's command, that marks a run as uploaded if it can."""

    begun: list

    def __init__(self, runs, live=False):
        self.runs = runs
        FakeUpload.begun.append(([run.name for run in runs], live))
        for run in runs:
            if run.name != "refused":
                (run / "run.wandb.synced").touch()

    def wait(self, seconds):
        return True

    def close(self):
        return None if all(map(is_uploaded, self.runs)) else "it is refused"


@pytest.fixture
def followed(tmp_path, monkeypatch, capsys):
    """Has a process of the uploader follow runs to the end; returns what it began, and what it said."""
    monkeypatch.setattr(background_sync, "Upload", FakeUpload)
    monkeypatch.setattr(background_sync, "TOGETHER_SECONDS", 0.0)
    FakeUpload.begun = []

    def follow(*names):
        told = queue.Queue()
        for name in names:
            (tmp_path / name).mkdir()
            told.put(str(tmp_path / name))
        told.put(None)
        Follower("http://127.0.0.1:9").follow(told)
        return FakeUpload.begun, capsys.readouterr().out.splitlines()

    return follow


def test_runs_are_followed_while_they_are_written(followed):
    begun, said = followed("a", "b")
    assert sorted(name for names, live in begun for name in names if live) == ["a", "b"]
    assert said == []


def test_what_is_wrong_is_said_once(followed):
    begun, said = followed("refused", "a")
    assert said == ["it is refused"]
    assert sum("refused" in names for names, _ in begun) <= 2  # it is tried again at the end


def test_a_run_that_was_marked_although_not_all_was_taken_is_not_uploaded(tmp_path, monkeypatch):
    """As W&B 0.31 does where the server refuses the history, or an artifact."""
    whole, part = (tmp_path / name for name in ("whole", "part"))
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
    for run in (whole, part):
        run.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    upload = Upload([part, whole])
    assert upload.wait(30)
    assert upload.close() == "filestream: fatal error: 403"
    assert (is_uploaded(part), is_uploaded(whole)) == (False, True)
