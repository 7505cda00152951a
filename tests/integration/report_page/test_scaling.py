"""Scaling laws in the report: lines, measured points and predictions of each k, and their numbers."""

import json
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.scaling_laws import FILE, describe_law, group_for_laws, write_laws
from sae_sweeps.tasks.report import write_page
from tests.integration.pages import opened
from tests.integration.report_page.reading import IN_CHROMIUM, chart, table, traces
from tests.report.made import put, some_metrics

pytestmark = IN_CHROMIUM

SIZES, KS = (384, 768, 1536, 3072, 6144), (16, 32)
TITLE = "NMSE of TopK by dictionary size"


@pytest.fixture
def sizes(tmp_path) -> Path:
    """A sweep with a law of two k, which predicts a size that is trained and one that is not."""
    sweep = Sweep(tmp_path / "sizes")
    for k in KS:
        for size in SIZES:
            metrics = some_metrics(size, nmse=(0.4 * (size / 1000) ** -0.6 + 0.06) * (k / 32) ** -0.2, l0=float(k))
            put(sweep, f"topk-{size}-{k}", "sae=topk", f"dict_size={size}", f"k={k}", metrics=metrics)
    (group,) = group_for_laws(load_sweep(sweep).points)
    write_laws(sweep, [describe_law(group, [6144, 12288])], {})
    write_page([load_sweep(sweep)], 1.0)
    return sweep.folder


def test_the_chart_has_laws_points_and_predictions_of_each_k(browser, sizes):
    (law,) = json.loads((sizes / FILE).read_text())["laws"]
    with opened(browser, sizes / "report.html") as page:
        found = {trace["name"]: trace for trace in traces(page, TITLE) if trace["name"]}
        for k in KS:
            measured, predicted = found[f"measured, k {k}"], found[f"predicted, k {k}"]
            assert measured["x"] == list(SIZES)
            assert predicted["x"] == [6144, 12288]
            assert predicted["y"] == [one["value"] for one in law["predictions"] if one["k"] == k]
            assert found[f"largest size, predicted, k {k}"]["x"] == [3072]
            assert found[f"law, k {k}"]["x"][-1] == pytest.approx(4 * 3072)
        figure = chart(page, TITLE)
        figure.get_by_role("button", name="measured, k 16").click()
        page.wait_for_timeout(300)
        assert "measured, k 16" not in {trace["name"] for trace in traces(page, TITLE)}
        figure.locator("summary").click()
        rows = table(figure.locator("table"))
        assert [row[3] for row in rows].count("measured") == 10
        assert len(rows) == 10 + 2 + 4
