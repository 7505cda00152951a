"""task=sync: runs made from a point's files, and servers that answer but take no runs."""

import http.server
import json
import shutil
import threading
import time

import pytest

from sae_sweeps.config.commands import format_command
from sae_sweeps.runtime.files import read_json, write_json
from sae_sweeps.sweep import Point, Sweep
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.tasks import sync
from sae_sweeps.tasks.run_packs import run_packs
from sae_sweeps.tracking import run as tracking_run
from sae_sweeps.tracking import wandb_sync
from sae_sweeps.tracking.wandb_sync import mark_incomplete, offline_runs
from tests.conftest import composed
from tests.tracking.test_run import records

KEY = "local" + 40 * "0"
VIEWER = {"viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
SERVER_INFO = {"serverInfo": {"cliVersionInfo": {}, "latestLocalVersionInfo": None, "features": []}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny):
    """A sweep of two points with W&B runs on disk."""
    sweep = Sweep(tmp_path_factory.mktemp("trained") / "outputs" / "synced")
    names = {f"k{k}": composed(*tiny, "name=synced", f"k={k}", "tracking=offline") for k in (3, 4)}
    sweep.add(names)
    assert run_packs(sweep, [Point(config, sweep.folder / name) for name, config in names.items()], Limits()) == {}
    for name in names:
        records(sweep.folder / name)  # waits until it is on disk
    return sweep.folder


@pytest.fixture
def sweep(trained, tmp_path):
    return Sweep(shutil.copytree(trained, tmp_path / "outputs" / "synced"))


@pytest.fixture
def server(monkeypatch):
    """A function that starts a W&B server that answers /healthz, and /graphql with `answer(query)`, and makes it W&B's.

    An answer is a status with headers and the text of the error; None for no answer.
    """
    import wandb

    monkeypatch.setattr(sync, "SECONDS_BETWEEN_CHECKS", 0.5)
    monkeypatch.setattr(sync, "STALL_SECONDS", 6.0)
    fast = {name: "1" if "TIMEOUT" in name or name.endswith("RETRY_MAX") else "0.2" for name in wandb_sync.IMPATIENT}
    monkeypatch.setattr(wandb_sync, "IMPATIENT", fast)
    ended, servers = threading.Event(), []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def reply(self, status, content, headers=()):
                body = json.dumps(content).encode()
                self.send_response(status)
                for name, value in (*headers, ("content-length", str(len(body)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.reply(200, {})

            def do_POST(self):
                query = self.rfile.read(int(self.headers.get("content-length") or 0)).decode(errors="replace")
                found = answer(query)
                if found is None:
                    ended.wait(60)
                    return
                status, headers, message = found
                data = {"data": {**VIEWER, **SERVER_INFO}} if status == 200 else {"errors": [{"message": message}]}
                self.reply(status, data, headers)

            def log_message(self, *words):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{servers[-1].server_address[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        wandb.teardown()

    yield start
    ended.set()
    for started in servers:
        started.shutdown()
        started.server_close()
    wandb.teardown()


def refuse_runs(status, message, *headers):
    """Return an answer that knows the viewer, but refuses every run."""

    def answer(query):
        return (status, headers, message) if "upsertbucket" in query.lower() else (200, (), "")

    return answer


REFUSALS = {
    "deleted": (refuse_runs(409, "run was previously created and deleted"), "HTTP 409: run was previously created and"),
    "busy": (refuse_runs(429, "slow down"), "HTTP 429: slow down. Fix: run task=sync again when"),
    "busy for an hour": (refuse_runs(429, "slow down", ("retry-after", "3600")), "slow down"),
    "broken": (lambda query: (500, (), "it broke"), "it broke"),
    "hanging": (lambda query: None, "graphql"),
    "forbidden": (refuse_runs(403, "no access to the project"), "Fix: check WANDB_API_KEY"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_server_that_takes_no_runs_ends_the_upload_with_its_words(sweep, server, refusal):
    answer, words = REFUSALS[refusal]
    server(answer)
    began = time.monotonic()
    first, *others = sync.run(sweep, composed("name=synced"))
    assert time.monotonic() - began < 60
    assert first.startswith("2 of 2 runs were not uploaded to http://127.0.0.1:")
    assert first.endswith(f". Again: {format_command('sync', 'synced', sweep.folder.parent)}")
    text = "\n".join(others)
    assert words in text
    assert "k3" in text
    assert "k4" in text
    assert "Fix: " in text
    if refusal == "deleted":
        folder = sweep.folder / "k3"
        assert f"`rm -r {folder}/wandb {folder}/wandb_run.json`, then task=sync again" in text
    assert len(offline_runs(sweep.folder / "k3")) == 1


def undo_run(folder):
    shutil.rmtree(folder / "wandb")


def forget_run(folder):
    shutil.rmtree(folder / "wandb")
    (folder / "wandb_run.json").unlink()


def spoil_run(folder):
    mark_incomplete(offline_runs(folder)[0])


def logged(found):
    """Return the configuration, curve and summary of a run, without the times that W&B adds."""
    config = {item.key: item.value_json for item in found["run"].config.update if not item.key.startswith("_")}
    lines = [*found["history"], found["summary"]]
    return config, [{name: value for name, value in line.items() if not name.startswith("_")} for line in lines]


@pytest.fixture
def uploads(monkeypatch):
    """A server that takes all runs; the list has their folders."""
    found = []

    def upload(runs, server, addresses):
        for run in runs:
            found.append(run)
            (run / "run.wandb.synced").touch()
        return {}

    monkeypatch.setattr(sync, "_upload", upload)
    monkeypatch.setattr(sync, "unreachable_reason", lambda server: None)
    return found


@pytest.mark.parametrize("lose", [undo_run, forget_run, spoil_run])
def test_a_missing_run_of_a_finished_point_is_made_from_its_files(sweep, uploads, lose, capsys):
    folder = sweep.folder / "k3"
    before, run_id = records(folder), read_json(folder / "wandb_run.json")["id"]
    lose(folder)
    assert sync.run(sweep, composed("name=synced")) == []
    assert capsys.readouterr().out.splitlines()[0] == "made 1 missing run from the files of finished points"
    after = records(folder)
    assert logged(after) == logged(before)
    assert after["exit"] == 0
    assert after["run"].run_group == "synced"
    assert (after["run"].run_id == run_id) == (lose is not forget_run)
    assert len(uploads) == 2
    assert sync.run(sweep, composed("name=synced")) == []
    assert len(uploads) == 2


@pytest.mark.parametrize("state", ["tracking off", "not done", "uploaded"])
def test_a_point_without_a_run_to_make_is_left_alone(sweep, uploads, state):
    folder = sweep.folder / "k3"
    if state == "tracking off":
        sweep.update(lambda known: known["points"]["k3"]["config"]["tracking"].update(mode="off"))
        undo_run(folder)
    elif state == "not done":
        (folder / "results.json").unlink()
        undo_run(folder)
    else:
        (offline_runs(folder)[0] / "run.wandb.synced").touch()
    assert sync.run(sweep, composed("name=synced")) == []
    assert [run.parent.parent.name for run in uploads] == ["k4"]


def test_a_run_that_cannot_be_made_is_named_and_the_others_are_uploaded(sweep, uploads, monkeypatch):
    import wandb

    def init(**options):
        raise wandb.Error("no room")

    undo_run(sweep.folder / "k3")
    monkeypatch.setattr(wandb, "init", init)
    (failure,) = sync.run(sweep, composed("name=synced"))
    assert failure.startswith("k3: W&B could not make the run")
    assert [run.parent.parent.name for run in uploads] == ["k4"]


def test_a_variable_that_wandb_cannot_use_is_named_before_anything_is_uploaded(sweep, uploads, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "wandb.mylab.org")
    (failure,) = sync.run(sweep, composed("name=synced"))
    assert failure.startswith("WANDB_BASE_URL=wandb.mylab.org: ")
    assert "Fix: give the whole address" in failure
    assert uploads == []


def test_a_run_that_wandb_stops_writing_is_made_again_later(trained, tmp_path, monkeypatch):
    run = tracking_run.start_run(
        composed("tracking=offline").tracking, tmp_path, group="g", job_type="train", config={}
    )
    monkeypatch.setattr(type(run._run), "log", lambda self, metrics: write_json(tmp_path / "no" / "\0", {}))
    run.log({"tokens": 1})
    (folder,) = offline_runs(tmp_path)
    assert wandb_sync.is_incomplete(folder)
