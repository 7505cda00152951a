"""The W&B run that compares a sweep, read back from its file; and the workspace, as it would be saved."""

import json
import re
import sys
from dataclasses import asdict, replace

import pytest

from sae_sweeps.config import TrackingConfig
from sae_sweeps.runtime.errors import NotRunError
from sae_sweeps.runtime.files import write_json
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import collect_points
from sae_sweeps.sweep.point_state import DONE, FAILED, State
from sae_sweeps.tasks import wandb_workspace
from sae_sweeps.tracking import comparison_run as comparing
from sae_sweeps.tracking.comparison_run import compare_run
from sae_sweeps.tracking.wandb_sync import offline_runs
from tests.commands import DONE_RESULTS
from tests.conftest import composed
from tests.tracking.test_run import records

METRICS = {"fvu": 0.2, "ce_degradation": 0.3, "ce_recovered_mean": 0.9, "ce_recovered_zero": 0.9, "dead_fraction": 0.0}


def points_in(sweep):
    return collect_points(sweep, {name: State(known["state"]) for name, known in sweep.read()["points"].items()})


@pytest.fixture
def sweep(tmp_path):
    """A sweep of four points: one failed, two differ only in their seeds."""
    found = Sweep(tmp_path / "outputs" / "ks")
    sizes = {"a": (48, 0, 0.2), "b": (48, 1, 0.4), "c": (96, 0, 0.1), "d": (96, 1, None)}
    configs = {
        name: composed(f"dict_size={size}", "k=4", f"seed={seed}", "tracking.project=p", "name=ks")
        for name, (size, seed, _) in sizes.items()
    }
    found.add(configs)
    for name, (_, _, nmse) in sizes.items():
        found.set_state(name, FAILED if nmse is None else DONE)
        if nmse is not None:
            config = asdict(configs[name])
            results = {**json.loads(DONE_RESULTS), "metrics": {**METRICS, "nmse": nmse, "l0": 4.0}, "config": config}
            write_json(found.folder / name / "results.json", results)
    return found


def logged(sweep) -> dict:
    """Return the tables that the run logged, those of the charts included, from its files."""
    records(sweep.folder)  # waits until the file is written
    (run,) = offline_runs(sweep.folder)
    files = {re.sub(r"_\d+_[0-9a-f]+$", "", file.name.split(".")[0]): file for file in run.glob("files/media/table/*")}
    return {name: json.loads(file.read_text()) for name, file in files.items()}


def test_the_run_has_the_points_the_groups_and_the_best_values(sweep):
    compare_run(sweep, TrackingConfig(), points_in(sweep))
    found = records(sweep.folder)
    assert (found["run"].run_group, found["run"].job_type, found["run"].project) == ("ks", "compare", "p")
    assert found["exit"] == 0
    tables = logged(sweep)
    rows = [dict(zip(tables["points"]["columns"], row, strict=True)) for row in tables["points"]["data"]]
    assert [(row["point"], row["dict_size"], row["seed"], row["state"], row["nmse"]) for row in rows] == [
        ("a", 48, 0, "done", 0.2),
        ("b", 48, 1, "done", 0.4),
        ("c", 96, 0, "done", 0.1),
        ("d", 96, 1, "failed", None),
    ]
    groups = [dict(zip(tables["groups"]["columns"], row, strict=True)) for row in tables["groups"]["data"]]
    assert [(row["SAE"], row["seeds"]) for row in groups] == [("BatchTopK 48, k 4", 2), ("BatchTopK 96, k 4", 1)]
    assert groups[0]["nmse"] == pytest.approx(0.3)
    assert groups[0]["nmse sd"] == pytest.approx(0.02**0.5)
    assert groups[1]["nmse sd"] is None
    assert found["summary"]["best/nmse"] == 0.1
    assert found["summary"]["best/nmse/SAE"] == "BatchTopK 96, k 4"
    assert "best/l0" not in found["summary"]


def test_the_charts_have_a_series_for_each_architecture_and_size(sweep):
    compare_run(sweep, TrackingConfig(), points_in(sweep))
    tables = logged(sweep)
    assert not any(name.startswith(("mcc", "feature_f1")) for name in tables)  # of synthetic activations alone
    for metric, title in {"nmse": "NMSE", "ce_degradation": "CE degradation"}.items():
        assert title == comparing.PARETO[metric]
        assert tables[f"{metric}_against_l0_table"]["columns"] == ["SAE", "L0", title]
        series = tables[f"{metric}_against_l0_by_size_table"]
        assert {row[series["columns"].index("lineKey")] for row in series["data"]} == {"BatchTopK 48", "BatchTopK 96"}


def test_the_comparison_stays_one_run_and_is_written_only_after_a_change(sweep, tmp_path):
    compare_run(sweep, TrackingConfig(), points_in(sweep))
    first, run_id = offline_runs(sweep.folder), records(sweep.folder)["run"].run_id
    compare_run(sweep, TrackingConfig(), points_in(sweep))
    assert offline_runs(sweep.folder) == first
    report = tmp_path / "report.html"
    report.write_text("<b>all</b>")
    compare_run(sweep, TrackingConfig(), points_in(sweep), report)
    (second,) = offline_runs(sweep.folder)
    assert second != first[0]
    found = records(sweep.folder)
    assert found["run"].run_id == run_id
    assert [(one.name, one.type) for one in found["artifacts"] if one.type == "report"] == [("ks-report", "report")]
    (panel,) = second.glob("files/media/html/report_*.html")
    assert panel.read_text() == "<b>all</b>"
    for unchanged in (report, None):
        compare_run(sweep, TrackingConfig(), points_in(sweep), unchanged)
        assert offline_runs(sweep.folder) == [second]


def test_a_failing_comparison_logs_one_warning(sweep, monkeypatch, caplog):
    def start_run(*words, **options):
        raise RuntimeError("nothing works")

    monkeypatch.setattr(comparing, "start_run", start_run)
    compare_run(sweep, TrackingConfig(), points_in(sweep))
    assert [record.getMessage() for record in caplog.records] == [
        "W&B: could not write the comparison run of sweep ks (RuntimeError: nothing works). "
        "To try again: python launch.py task=report name=ks"
    ]


def test_tracking_off_writes_no_comparison(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    compare_run(sweep, TrackingConfig(mode="off"), points_in(sweep))
    points = [replace(p, config={**p.config, "tracking": asdict(TrackingConfig(mode="off"))}) for p in points_in(sweep)]
    compare_run(sweep, TrackingConfig(), points)
    assert offline_runs(sweep.folder) == []


def test_the_workspace_has_the_panels_of_the_comparison():
    found = wandb_workspace.build_workspace("ks", "me", "p")
    comparison, training, tables = found.sections
    assert [(panel.x.name, panel.y.name) for panel in comparison.panels[:2]] == [
        ("eval/l0", "eval/nmse"),
        ("eval/l0", "eval/ce_degradation"),
    ]
    assert [type(panel).__name__ for panel in comparison.panels[2:]] == [
        "BarPlot",
        "ParallelCoordinatesPlot",
        "RunComparer",
    ]
    assert {panel.x for panel in training.panels} == {"tokens"}
    assert [panel.table_name for panel in tables.panels] == ["points", "groups"]
    (only,) = found._to_model().spec.model_dump(by_alias=True)["section"]["runSets"]
    (one,) = only["filters"]["filters"]
    assert (one["key"]["name"], one["op"], one["value"]) == ("group", "=", "ks")
    assert [key["name"] for key in only["grouping"]] == ["group", "jobType", "displayName"]


@pytest.fixture
def online(monkeypatch):
    """The configuration of a command with a reachable W&B server that saves nothing."""
    import wandb

    monkeypatch.setattr(wandb_workspace, "unreachable_reason", lambda server: None)
    monkeypatch.setattr(wandb, "Api", lambda **options: type("Api", (), {"default_entity": "me"}))
    return composed("name=ks", "task=wandb_workspace", "tracking=online")


def test_a_workspace_is_created_and_then_updated(sweep, online, monkeypatch):
    import wandb_workspaces.workspaces as ws

    saved = []

    def save(self):
        self._internal_name = self._internal_name or "nw-abc-v"
        saved.append(self)
        return self

    monkeypatch.setattr(ws.Workspace, "save", save)
    monkeypatch.setattr(ws.Workspace, "url", property(lambda self: f"https://x/me/p?nw={self._internal_name}"))

    def from_url(url):
        earlier = ws.Workspace(entity="me", project="p", name="old")
        earlier._internal_name = url.partition("nw=")[2]
        return earlier

    monkeypatch.setattr(ws.Workspace, "from_url", staticmethod(from_url))
    assert wandb_workspace.run(sweep, online) == []
    assert wandb_workspace.run(sweep, online) == []
    assert [(one.name, one.project, one._internal_name) for one in saved] == [("ks: comparison", "p", "nw-abc-v")] * 2
    assert saved[0] is not saved[1]
    assert len(saved[1].sections) == 3
    assert json.loads((sweep.folder / "wandb_workspace.json").read_text())["url"] == "https://x/me/p?nw=nw-abc-v"


def test_a_server_without_workspaces_is_a_failure_that_says_what_is_needed(sweep, online, monkeypatch):
    import wandb_workspaces.workspaces as ws

    def save(self):
        raise ValueError('Cannot query field "upsertView"')

    monkeypatch.setattr(ws.Workspace, "save", save)
    (failure,) = wandb_workspace.run(sweep, online)
    assert (' refused the workspace (Cannot query field "upsertView"); a workspace needs an API key') in failure


def test_what_a_workspace_needs_is_reported(sweep, online, monkeypatch):
    with pytest.raises(NotRunError, match=r"tracking=offline: .* Fix: tracking=online; upload the runs with task=sync"):
        wandb_workspace.run(sweep, composed("name=ks"))
    with pytest.raises(NotRunError, match=r"tracking=off: must be online, .* on the server\. Fix: tracking=online$"):
        wandb_workspace.run(sweep, composed("name=ks", "tracking=off"))
    monkeypatch.setattr(wandb_workspace, "unreachable_reason", lambda server: f"{server} does not answer")
    with pytest.raises(NotRunError, match="does not answer"):
        wandb_workspace.run(sweep, online)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setattr(wandb_workspace.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotRunError, match="pip install wandb-workspaces"):
        wandb_workspace.run(sweep, online)
