"""W&B's offline runs, read back from the files that `wandb sync` would upload."""

import json
import signal
import struct
import sys
import time

import psutil
import pytest

from sae_sweeps.config import TrackingConfig
from sae_sweeps.tracking import start_run


def log_records(data):
    """The records of a LevelDB log as W&B writes it: a header of 7 bytes, then blocks of 32 KiB with fragments, each
    behind its checksum (4 bytes), length (2) and type (1: whole, 2: first, 3: middle, 4: last)."""
    at, pending = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        pending += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield pending
            pending = b""


def records(folder):
    """What the offline run of `folder` holds: its identity, its configuration, its history and its summary.

    W&B's service writes the file, and may do so a moment after `finish` has returned.
    """
    deadline = time.monotonic() + 20
    while (found := records_so_far(folder))["exit"] is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def records_so_far(folder):
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = {"run": None, "history": [], "summary": {}, "exit": None}
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run") and found["run"] is None:
            found["run"] = record.run
        if record.HasField("history"):
            items = record.history.item
            found["history"].append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
        if record.HasField("summary"):
            for item in record.summary.update:
                found["summary"][item.key or item.nested_key[0]] = json.loads(item.value_json)
        if record.HasField("exit"):
            found["exit"] = record.exit.exit_code
    return found


def test_a_run_holds_its_curve_configuration_group_and_final_metrics(tmp_path):
    point = tmp_path / "topk-48"
    point.mkdir()
    run = start_run(TrackingConfig(), point, group="my-sweep", job_type="train", config={"k": 4, "sae": {"a": 1}})
    run.log({"tokens": 100, "train/loss": 0.5})
    run.log({"tokens": 200, "train/loss": 0.25})
    run.finish({"eval/nmse": 0.1})
    found = records(point)
    assert found["run"].project == "sae-sweeps"
    assert found["run"].display_name == "topk-48"
    assert found["run"].run_group == "my-sweep"
    assert found["run"].job_type == "train"
    assert found["run"].run_id == json.loads((point / "wandb_run.json").read_text())["id"]
    config = {item.key: json.loads(item.value_json) for item in found["run"].config.update}
    assert config["k"] == 4
    assert config["sae"] == {"a": 1}
    assert [(line["tokens"], line["train/loss"]) for line in found["history"]] == [(100, 0.5), (200, 0.25)]
    assert found["summary"]["eval/nmse"] == 0.1
    assert found["exit"] == 0


def test_a_point_that_goes_on_keeps_its_run_and_its_whole_curve(tmp_path):
    lines = [{"tokens": 100 * step, "train/loss": 1 / step} for step in (1, 2, 3)]
    begin = {"group": "g", "job_type": "train", "config": {}}
    first = start_run(TrackingConfig(), tmp_path, **begin)
    first_id = json.loads((tmp_path / "wandb_run.json").read_text())["id"]
    for line in lines:
        first.log(line)
    first.finish(failed=True)
    second = start_run(TrackingConfig(), tmp_path, **begin, history=lines[:2])  # it goes on behind the second line
    second.log(lines[2])
    second.finish()
    found = records(tmp_path)  # there is one run only
    assert found["run"].run_id == first_id
    assert [line["tokens"] for line in found["history"]] == [100, 200, 300]


def test_off_touches_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    run = start_run(TrackingConfig(mode="off"), tmp_path, group="g", job_type="train", config={})
    run.log({"tokens": 1})
    run.finish({"x": 1})
    assert list(tmp_path.iterdir()) == []


def test_online_without_a_key_goes_on_offline(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    run = start_run(TrackingConfig(mode="online"), tmp_path, group="g", job_type="train", config={})
    run.log({"tokens": 1, "train/loss": 1.0})
    run.finish({"eval/nmse": 0.5})
    assert "goes on offline" in caplog.text
    assert records(tmp_path)["summary"]["eval/nmse"] == pytest.approx(0.5)


def test_the_warning_of_a_coming_end_does_not_end_the_run(tmp_path):
    run = start_run(TrackingConfig(), tmp_path, group="g", job_type="train", config={})
    run.log({"tokens": 1, "loss": 0.5})
    services = [child for child in psutil.Process().children(recursive=True) if "wandb" in " ".join(child.cmdline())]
    assert services
    for service in services:
        service.send_signal(signal.SIGUSR1)
    time.sleep(0.5)  # a process that heard it would be gone
    run.log({"tokens": 2, "loss": 0.25})
    run.finish({"eval/nmse": 0.1})
    assert [line["tokens"] for line in records(tmp_path)["history"]] == [1, 2]
