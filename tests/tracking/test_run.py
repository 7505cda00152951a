"""W&B runs, read back from the offline files that `wandb sync` would upload."""

import json
import signal
import struct
import sys
import time
from pathlib import Path

import psutil

from sae_sweeps.config import TrackingConfig
from sae_sweeps.tracking.run import Run, start_run, sync_command


def log_records(data):
    """Yield the records of a LevelDB log as W&B writes it: a header of 7 bytes, then blocks of 32 KiB with fragments.

    A fragment is preceded by its checksum (4 bytes), length (2) and type (1: whole, 2: first, 3: middle, 4: last).
    """
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
    """Return what the offline run of `folder` holds: identity, configuration, history and summary.

    W&B's service may write the file a moment after `finish` has returned.
    """
    deadline = time.monotonic() + 20
    while (found := records_so_far(folder))["exit"] is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def records_so_far(folder):
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = {"run": None, "history": [], "summary": {}, "exit": None, "metrics": {}, "artifacts": []}
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
        if record.HasField("metric"):
            found["metrics"][record.metric.name or record.metric.glob_name] = record.metric
        if record.HasField("request") and record.request.HasField("log_artifact"):
            found["artifacts"].append(record.request.log_artifact.artifact)
        if record.HasField("artifact"):
            found["artifacts"].append(record.artifact)
        if record.HasField("exit"):
            found["exit"] = record.exit.exit_code
    return found


def test_a_run_has_its_curve_configuration_group_and_final_metrics(tmp_path):
    point = tmp_path / "topk-48"
    point.mkdir()
    tracking = TrackingConfig(tags=["first", "try"], notes="a note")
    run = start_run(tracking, point, group="my-sweep", job_type="train", config={"k": 4, "sae": {"a": 1}})
    run.log({"tokens": 100, "train/loss": 0.5})
    run.log({"tokens": 200, "train/loss": 0.25})
    run.finish({"eval/nmse": 0.1})
    found = records(point)
    assert found["run"].project == "sae-sweeps"
    assert found["run"].display_name == "topk-48"
    assert found["run"].run_group == "my-sweep"
    assert found["run"].job_type == "train"
    assert (list(found["run"].tags), found["run"].notes) == (["first", "try"], "a note")
    assert found["run"].run_id == json.loads((point / "wandb_run.json").read_text())["id"]
    config = {item.key: json.loads(item.value_json) for item in found["run"].config.update}
    assert config["k"] == 4
    assert config["sae"] == {"a": 1}
    assert [(line["tokens"], line["train/loss"]) for line in found["history"]] == [(100, 0.5), (200, 0.25)]
    assert found["summary"]["eval/nmse"] == 0.1
    assert found["exit"] == 0


def test_a_resumed_point_keeps_its_run_id_and_its_whole_curve(tmp_path):
    lines = [{"tokens": 100 * step, "train/loss": 1 / step} for step in (1, 2, 3)]
    begin = {"group": "g", "job_type": "train", "config": {}}
    first = start_run(TrackingConfig(), tmp_path, **begin)
    first_id = json.loads((tmp_path / "wandb_run.json").read_text())["id"]
    for line in lines:
        first.log(line)
    first.finish(failed=True)
    second = start_run(TrackingConfig(), tmp_path, **begin, history=lines[:2])  # resumes after the second line
    second.log(lines[2])
    second.finish()
    found = records(tmp_path)  # fails unless there is exactly one run
    assert found["run"].run_id == first_id
    assert [line["tokens"] for line in found["history"]] == [100, 200, 300]


def test_tracking_off_imports_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    run = start_run(TrackingConfig(mode="off"), tmp_path, group="g", job_type="train", config={})
    run.log({"tokens": 1})
    run.finish({"x": 1})
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_wandb_is_logged_once_and_not_raised(caplog):
    class Broken:
        def log(self, metrics):
            raise RuntimeError("the service has gone")

    run = Run(Broken())
    run.log({"tokens": 1})
    run.log({"tokens": 2})
    run.table("t", ["a"], [[1]])
    run.finish({"eval/nmse": 0.5})
    assert [record.getMessage() for record in caplog.records] == [
        "W&B: logging stopped for this run (the service has gone). "
        "Work continues, and the results are still written to disk"
    ]


def test_a_run_that_cannot_start_logs_a_warning_and_nothing_else(tmp_path, monkeypatch, caplog):
    import wandb

    def init(**options):
        raise wandb.Error("no room")

    monkeypatch.setattr(wandb, "init", init)
    start_run(TrackingConfig(), tmp_path, group="g", job_type="train", config={}).log({"tokens": 1})
    assert "W&B: could not start the run of" in caplog.text
    assert "(no room). W&B will not show this run; results are still written to disk" in caplog.text


def test_metrics_are_plotted_over_tokens_and_define_their_best_end(tmp_path):
    run = start_run(TrackingConfig(), tmp_path, group="g", job_type="train", config={})
    run.log({"tokens": 1, "train/loss": 1.0})
    run.finish()
    found = records(tmp_path)["metrics"]
    assert found["*"].step_metric == "tokens"
    assert found["eval/nmse"].step_metric == "tokens"
    assert (found["eval/nmse"].summary.min, found["eval/nmse"].summary.max) == (True, False)
    assert (found["eval/ce_recovered_mean"].summary.min, found["eval/ce_recovered_mean"].summary.max) == (False, True)
    assert (found["eval/l0"].summary.min, found["eval/l0"].summary.max) == (False, False)
    assert found["tokens"].options.hidden
    assert found["train/step"].options.hidden


def test_a_study_chooses_its_own_axis(tmp_path):
    run = start_run(TrackingConfig(), tmp_path, group="g", job_type="stitch", config={}, axis="position")
    run.finish()
    found = records(tmp_path)["metrics"]
    assert found["*"].step_metric == "position"
    assert sorted(found) == ["*", "position"]


def test_an_artifact_has_its_files_metadata_and_alias(tmp_path):
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "cfg.json").write_text("{}")
    run = start_run(TrackingConfig(), tmp_path, group="g", job_type="train", config={})
    run.artifact("topk-48", "model", tmp_path / "sae", {"nmse": 0.5})
    run.finish()
    (artifact,) = records(tmp_path)["artifacts"]
    assert (artifact.name, artifact.type, list(artifact.aliases)) == ("topk-48", "model", ["latest"])
    assert json.loads(artifact.metadata) == {"nmse": 0.5}
    (content,) = artifact.manifest.contents
    assert (content.path, content.local_path) == ("cfg.json", str(tmp_path / "sae" / "cfg.json"))  # no copy


def test_the_sync_command_names_the_output_root_unless_it_is_the_default(tmp_path):
    assert sync_command(Path("outputs/ks/topk-48"), "ks") == "python launch.py task=sync name=ks"
    elsewhere = sync_command(tmp_path / "runs" / "ks" / "stitch" / "a", "ks")
    assert elsewhere == f"python launch.py task=sync name=ks output_root={tmp_path / 'runs'}"


def test_sigusr1_does_not_end_the_wandb_service(tmp_path):
    run = start_run(TrackingConfig(), tmp_path, group="g", job_type="train", config={})
    run.log({"tokens": 1, "loss": 0.5})
    services = [child for child in psutil.Process().children(recursive=True) if "wandb" in " ".join(child.cmdline())]
    assert services
    for service in services:
        service.send_signal(signal.SIGUSR1)
    time.sleep(0.5)  # a process that received it would have ended
    run.log({"tokens": 2, "loss": 0.25})
    run.finish({"eval/nmse": 0.1})
    assert [line["tokens"] for line in records(tmp_path)["history"]] == [1, 2]
