"""Sweeps that are uploaded to a W&B-compatible server while they run, one of them to a server that is killed.

OPENWANDB names the server's command (PyPI's openwandb, in its own environment); `make integration` installs one.
"""

import json
import os
import socket
import sqlite3
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from sae_sweeps.tracking.wandb_sync import is_uploaded, offline_runs
from tests.conftest import launch, start

pytestmark = pytest.mark.integration

POINTS = ["sae=batchtopk,topk,jumprelu", "dict_size=48,96", "k=32"]


class Server:
    """An openwandb server with its own folder; its contents are read from its database."""

    def __init__(self, command: str, folder: Path) -> None:
        self.command, self.folder = command, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: psutil.Popen | None = None

    def start(self) -> None:
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--data-dir", str(self.folder)]
        with open(self.folder.with_suffix(".log"), "a") as log:
            self.process = psutil.Popen([self.command, "serve", *where], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=1)
                return
            except OSError:
                assert time.monotonic() < deadline, self.folder.with_suffix(".log").read_text()
                time.sleep(0.2)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def fetch_rows(self, query: str) -> list[tuple]:
        with sqlite3.connect(self.folder / "openwandb.db") as data:
            return data.execute(query).fetchall()

    def runs(self) -> dict[str, dict]:
        """Return name, state, configuration, summary and number of logged training steps by run id."""
        found = {}
        columns = "run_id, display_name, state, config_json, summary_json"
        for run, name, state, config, summary in self.fetch_rows(f"select {columns} from runs"):
            steps = self.fetch_rows(f"select distinct step from metrics where run_id = '{run}' and key = 'train/loss'")
            values = {"config": json.loads(config), "summary": json.loads(summary), "steps": len(steps)}
            found[run] = {"name": name, "state": state, **values}
        return found


@pytest.fixture
def server(tmp_path, monkeypatch):
    command = os.environ.get("OPENWANDB")
    if not command:
        pytest.skip("OPENWANDB is not set; `make integration` installs a server and sets it")
    server = Server(str(Path(command).absolute()), tmp_path / "server")
    server.start()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "local" + 40 * "0")
    yield server
    server.kill()


def require_complete(server: Server, sweep: Path) -> None:
    """Assert that every point is one completely uploaded run, and so is the comparison."""
    points = [file.parent for file in sweep.glob("*/results.json")]
    assert len(points) == 6
    runs = server.runs()
    assert sorted(run["name"] for run in runs.values()) == sorted([*(point.name for point in points), sweep.name])
    for point in points:
        run = runs[json.loads((point / "wandb_run.json").read_text())["id"]]
        results = json.loads((point / "results.json").read_text())
        lines = len((point / "metrics.jsonl").read_text().splitlines())
        assert (run["name"], run["state"], run["steps"]) == (point.name, "finished", lines)
        assert run["config"]["dict_size"]["value"] == results["config"]["dict_size"]
        assert run["summary"]["eval/nmse"] == pytest.approx(results["metrics"]["nmse"])
        assert all(map(is_uploaded, offline_runs(point)))
    comparison = runs[json.loads((sweep / "wandb_compare.json").read_text())["id"]]
    best = min(json.loads((point / "results.json").read_text())["metrics"]["nmse"] for point in points)
    assert comparison["summary"]["best/nmse"] == pytest.approx(best)
    assert all(map(is_uploaded, offline_runs(sweep)))


def test_a_sweep_is_uploaded_while_it_runs(server, tmp_path, tiny):
    done = launch("-m", *tiny, *POINTS, "name=on", "tracking=online", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if "W&B" in done.stdout:  # on a slow machine the uploads may not finish within the few seconds at the end
        assert launch("task=sync", "name=on", cwd=tmp_path).returncode == 0
    require_complete(server, tmp_path / "outputs" / "on")


@pytest.mark.long
def test_a_killed_server_does_not_delay_training_and_the_runs_are_uploaded_later(server, tmp_path, tiny):
    longer = [*tiny, *POINTS, "training.tokens=60000", "training.log_every=20", "training.checkpoint_every=500"]
    began = time.monotonic()
    assert launch("-m", *longer, "name=off", "tracking=offline", cwd=tmp_path).returncode == 0
    offline = time.monotonic() - began

    began = time.monotonic()
    sweep = tmp_path / "outputs" / "on"
    running = start("-m", *longer, "name=on", "tracking=online", cwd=tmp_path)
    while not any(file.stat().st_size for file in sweep.glob("*/metrics.jsonl")):
        assert running.poll() is None
        time.sleep(0.1)
    server.kill()
    assert running.wait(timeout=240) == 0
    assert time.monotonic() - began < 2 * offline + 20  # W&B itself would wait for minutes or forever
    assert len(list(sweep.glob("*/results.json"))) == 6
    assert not any(is_uploaded(run) for point in sweep.iterdir() for run in offline_runs(point))

    refused = launch("task=sync", "name=on", cwd=tmp_path)
    assert refused.returncode == 1
    assert "cannot be reached" in refused.stderr
    server.start()
    done = launch("task=sync", "name=on", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "uploaded 7 runs" in done.stdout
    require_complete(server, sweep)
    again = launch("task=sync", "name=on", cwd=tmp_path)
    assert again.stdout.splitlines() == ["0 runs to upload"]
