"""Numbers in the report: they equal those of the sweep's files."""

import json
import re
import statistics

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Page

from sae_sweeps.evaluation.metrics import METRICS, choose_metrics
from tests.integration.report_page.reading import IN_CHROMIUM, results, traces, ungroup_seeds

pytestmark = IN_CHROMIUM


def is_rounded(text: str, value: float, decimals: int | None = None) -> bool:
    """Return whether the text is the value rounded to these decimals, or to four digits."""
    read = re.sub(r"[★,\s]", "", text)
    if read.endswith("%"):
        value, read = 100 * value, read.rstrip("%")
    if decimals is None:
        return float(read) == pytest.approx(value, rel=5.01e-3 if "e" in read else 5.01e-4)
    return len(read.partition(".")[2]) == decimals and abs(float(read) - value) <= 0.5001 * 10**-decimals


def cells(page: Page) -> dict[tuple[str, str], tuple[str | None, str]]:
    """Return the value and the text of each cell by (points, column)."""
    found = page.locator("#points-table td[data-name]").evaluate_all(
        "all => all.map((one) => [one.closest('tr').dataset.point, one.dataset.name, one.dataset.value ?? null,"
        " one.firstChild.textContent])"
    )
    return {(points, name): (value, text) for points, name, value, text in found}


DECIMALS = {"tokens_per_second": 0, "seconds": 1, **{name: metric.decimals for name, metric in METRICS.items()}}
for share in ("dead_fraction", "top_variance_share"):
    DECIMALS[share] -= 2  # of a percentage


def test_the_numbers_of_points_equal_those_of_their_files(open_report, sweep):
    page = open_report()
    ungroup_seeds(page)
    found = cells(page)
    points = {name for name, _ in found} - {"jumprelu-48-failing"}
    shown = choose_metrics(results(sweep / name)["metrics"] for name in points)
    assert {metric for _, metric in found} == {"tokens_per_second", "seconds", *(metric.name for metric in shown)}
    assert len(found) == 9 * (2 + len(shown))
    for (name, metric), (value, text) in found.items():
        known = {} if name == "jumprelu-48-failing" else results(sweep / name)
        expected = {**known.get("training", {}), **known.get("metrics", {})}.get(metric)
        if expected is None:  # the point failed, or has no such metric, as TopK has no threshold
            assert (value, text) == (None, "–")  # noqa: RUF001  a dash
            continue
        assert float(value) == expected
        assert is_rounded(text, expected, DECIMALS[metric])


def test_grouped_seeds_show_mean_and_standard_deviation(open_report, sweep):
    page = open_report()
    for (names, metric), (value, text) in cells(page).items():
        if names == "jumprelu-48-failing" or metric not in METRICS:
            continue
        members = [results(sweep / name)["metrics"].get(metric) for name in names.split()]
        assert len(members) == 2
        if members == [None, None]:
            assert (value, text) == (None, "–")  # noqa: RUF001  a dash
            continue
        assert float(value) == statistics.fmean(members)
        assert is_rounded(text, float(value), DECIMALS[metric])
        spread = page.locator(f"tr[data-point='{names}'] td[data-name={metric}] small[data-spread]")
        assert float(spread.get_attribute("data-spread")) == statistics.stdev(members)
        assert is_rounded(spread.inner_text().removeprefix("±"), statistics.stdev(members), DECIMALS[metric])


@pytest.mark.parametrize(
    ("task", "section"), [("stitch", "stitching-body"), ("meta_sae", "meta-body"), ("meta_sizes", "sizes-body")]
)
def test_the_numbers_of_studies_equal_those_of_their_files(open_report, sweep, task, section):
    page = open_report()
    seen = set()
    for at in range(4):
        page.locator(f"#{section} > .controls select").select_option(str(at))
        name = page.locator(f"#{section} dl.numbers").get_attribute("data-study")
        known = results(sweep / task / name)["metrics"]
        numbers = page.locator(f"#{section} [data-study='{name}'] [data-name]")
        found = numbers.evaluate_all("all => all.map((one) => [{ ...one.dataset }, one.textContent])")
        assert sorted(data["name"] for data, _ in found) == sorted(known)
        for data, text in found:
            value = known[data["name"]]
            assert (float(data["value"]) if "value" in data else None) == value
            assert text == "–" if value is None else is_rounded(text, value)  # noqa: RUF001  a dash
        seen.add(name)
    assert seen == {folder.name for folder in (sweep / task).iterdir()}


def test_the_curves_of_a_stitching_study_equal_those_of_its_file(open_report, sweep):
    page = open_report()
    known = results(sweep / "stitch" / page.locator("#stitching-body dl.numbers").get_attribute("data-study"))["curves"]
    assert traces(page, "NMSE of the interpolation")[0]["y"] == known["interpolation"]["nmse"]
    assert traces(page, "L0 of the interpolation")[0]["y"] == known["interpolation"]["l0"]
    assert traces(page, "CE degradation of the interpolation, nats")[0]["y"] == known["ce_degradation"]["nats"]


def test_training_curves_equal_those_of_the_files(open_report, sweep):
    page = open_report()
    drawn = sorted(trace["y"] for trace in traces(page, "Training curves"))
    files = sorted(sweep.glob("*/metrics.jsonl"))
    written = [[json.loads(line)["mse"] for line in file.read_text().splitlines()] for file in files]
    assert drawn == [pytest.approx(curve, rel=1e-4) for curve in sorted(written) if curve]
