"""report.html in a browser: it works from disk, and its numbers equal those of the sweep's files."""

import itertools
import json
import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Browser, Locator, Page, expect

from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.sweep import Point, Sweep
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.sweep.point_state import FAILED, write_state
from sae_sweeps.tasks import train
from sae_sweeps.tasks.report import write_page
from tests.conftest import composed, launch
from tests.integration.pages import (
    CHROMIUM,
    CLICKS_ON_LATENTS,
    CLICKS_ON_POINTS,
    EXPLORER_MIB,
    THEMES,
    WIDTHS,
    chromium,
    column,
    draw_all,
    filters,
    opened,
    time_click,
    write_report_of_latents,
    write_report_of_points,
)
from tests.tasks.conftest import GIVEN, point

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed, and CHROMIUM is not set"),
]

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, tiny) -> Path:
    """The folder of a sweep with two seeds, all studies, a failed point, and its report."""
    root = tmp_path_factory.mktemp("report")
    words = ["sae=batchtopk,topk", "dict_size=32,48", "seed=0,1", "then=[stitch,meta_sae,latents]"]
    done = launch("-m", *tiny, *words, *GIVEN, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = root / "outputs" / "first"
    failing = composed(*tiny, *GIVEN, "sae=jumprelu", "sae.sparsity_coefficient=0.01", "training.lr=1e38")
    Sweep(folder).add({"jumprelu-48-failing": failing})
    train.run([Point(failing, folder / "jumprelu-48-failing")], Limits(), note_failure)
    write_page([load_sweep(Sweep(folder))], EXPLORER_MIB)
    return folder


def note_failure(point: Point, error: Exception | None) -> None:
    write_state(point.folder, FAILED, str(error))


@pytest.fixture
def open_report(browser, sweep) -> Iterator[Open]:
    """Open the sweep's report; at the end of the test it must have had no requests, errors or warnings."""
    with ExitStack() as stack:
        yield lambda *fragment, **view: stack.enter_context(opened(browser, sweep / "report.html", *fragment, **view))


def values(page: Page, name: str) -> list[float | None]:
    """Return a column of the table in its current order."""
    found = page.locator(f"#points-table td[data-name={name}]").evaluate_all(
        "all => all.map((one) => one.dataset.value)"
    )
    return [None if value is None else float(value) for value in found]


def rows(page: Page) -> Locator:
    return page.locator("#points-table tbody tr")


def chart(page: Page, title: str) -> Locator:
    """Scroll to a chart and wait until it is drawn."""
    figure = page.locator("figure", has=page.get_by_role("heading", name=title, exact=True))
    figure.scroll_into_view_if_needed()
    expect(figure.locator(".main-svg").first).to_be_visible()
    return figure


def traces(page: Page, title: str) -> list[dict[str, Any]]:
    """Return name and coordinates of each plotted series."""
    plotted = "area => area.data.map(({ name, x, y }) => ({ name, x: [...x], y: [...y] }))"
    return chart(page, title).locator(".chart").evaluate(plotted)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def ungroup_seeds(page: Page) -> None:
    filters(page, "seeds").select_option("")
    expect(rows(page)).to_have_count(9)


def test_drawing_and_hovering_everything_makes_no_request_and_no_error(open_report):
    page = open_report()
    draw_all(page)
    for area in page.locator(".chart").all():
        area.hover()
    for summary in page.locator("summary").all():
        summary.click()
    assert page.locator("details:not([open])").count() == 0


def test_the_first_paint_is_within_two_seconds(open_report):
    assert open_report().evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") < 2000


def test_nothing_overflows_horizontally(open_report, sweep):
    page = open_report(f"#/{point(sweep, 'topk-48-k4-seed0').name}/5")
    draw_all(page)
    for width, theme in itertools.product(WIDTHS, THEMES):
        set_view(page, width, theme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def set_view(page: Page, width: int, theme: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    expect(page.locator("html")).to_have_attribute("data-theme", theme)
    page.wait_for_timeout(300)  # charts are redrawn


def test_columns_sort_both_ways_with_missing_values_last(open_report):
    page = open_report()
    ungroup_seeds(page)
    for name in ("fvu", "l0", "ce_recovered_mean", "seconds"):
        orders = set()
        for _ in range(2):
            column(page, name).click()
            orders.add(order := page.locator(f"th[data-name={name}]").get_attribute("aria-sort"))
            *known, last = values(page, name)
            assert last is None
            assert known == sorted(known, reverse=order == "descending")
            assert page.locator("th[aria-sort]").count() == 1
        assert orders == {"ascending", "descending"}


def test_columns_sort_by_keyboard(open_report):
    page = open_report()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('th')?.dataset.name") == "l0":
            break
    page.keyboard.press("Enter")
    assert page.locator("th[data-name=l0]").get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")  # the redrawn button has the focus
    assert page.locator("th[data-name=l0]").get_attribute("aria-sort") == "descending"


def test_filters_keep_the_matching_points(open_report):
    page = open_report()
    expect(rows(page)).to_have_count(5)
    filters(page, "search").fill("TOPK seed")
    expect(rows(page)).to_have_count(4)
    filters(page, "architecture").select_option("topk")
    expect(rows(page)).to_have_count(2)
    filters(page, "search").fill("batch")
    expect(rows(page)).to_have_count(0)
    filters(page, "search").fill("")
    expect(rows(page)).to_have_count(2)
    filters(page, "architecture").select_option("")
    filters(page, "dict size").select_option("32")
    expect(rows(page)).to_have_count(2)
    expect(page.locator("#points-status")).to_contain_text("2 of 5")
    assert sum(len(trace["x"]) for trace in traces(page, "Dead latents")) == 2
    filters(page, "dict size").select_option("")
    filters(page, "state").select_option("failed")
    expect(rows(page)).to_have_count(1)


def test_differences_are_from_the_chosen_baseline(open_report):
    page = open_report()
    base = rows(page).nth(2)
    label = base.locator("th label span:last-child").inner_text().split(", 2 seeds")[0]
    filters(page, "baseline").select_option(label)
    expect(base).to_contain_text("(baseline)")
    nmse = values(page, "nmse")
    for at in (0, 1, 3):
        difference = rows(page).nth(at).locator("td[data-name=nmse] small").last
        text = difference.inner_text().replace("−", "-")  # noqa: RUF001  the sign
        assert float(text.rstrip("%")) == pytest.approx(100 * (nmse[at] / nmse[2] - 1), abs=0.0501)
        assert difference.get_attribute("class") == ("better" if nmse[at] < nmse[2] else "worse")
    filters(page, "baseline").select_option("")
    expect(page.locator("#points-table small.better, #points-table small.worse")).to_have_count(0)


def test_curves_and_settings_show_the_selected_points(open_report):
    page = open_report()
    ungroup_seeds(page)
    assert len(traces(page, "Training curves")) == 8
    for at in (0, 3):
        rows(page).nth(at).get_by_role("checkbox").check()
    labels = [
        text.removesuffix(" (baseline)") for text in rows(page).locator("th label span:last-child").all_inner_texts()
    ]
    chosen = {labels[0], labels[3]}
    expect(page.locator("#settings-status")).to_contain_text("2 selected points.")
    assert {*page.locator("#settings-table thead th").all_inner_texts()[1:]} == chosen
    expect(chart(page, "Training curves").locator(".legend .traces")).to_have_count(2)
    assert {trace["name"] for trace in traces(page, "Training curves")} == chosen


def test_settings_that_differ_between_selected_points_are_listed(open_report):
    page = open_report()
    for at in (0, 1):
        rows(page).nth(at).get_by_role("checkbox").check()
    found = {row[0]: set(row[1:]) for row in table(page.locator("#settings-table"))}
    assert found["seed"] == {"0", "1"}


def table(one: Locator) -> list[list[str]]:
    """Return the body of a table as text."""
    return one.locator("tbody tr").evaluate_all(
        "all => all.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )


def test_a_chart_has_tooltips(open_report):
    page = open_report()
    chart(page, "NMSE against L0").locator(".points path").first.hover(force=True)
    expect(page.locator("#sparsity .hoverlayer .hovertext").first).to_contain_text("NMSE 0.")


def test_a_chart_lists_its_numbers(open_report):
    page = open_report()
    figure = chart(page, "NMSE against L0")
    figure.get_by_text("Numbers").click()
    numbers = figure.locator("table")
    expect(numbers.locator("tbody tr")).to_have_count(4)
    read = sorted(float(row[2]) for row in table(numbers))
    assert read == pytest.approx(sorted(value for value in values(page, "nmse") if value is not None), rel=1e-3)


def test_the_theme_can_be_chosen(open_report):
    page = open_report()
    button, root = page.locator("#theme"), page.locator("html")
    seen = []
    for _ in range(3):
        button.click()
        seen.append((button.inner_text(), root.get_attribute("data-theme")))
    assert seen == [("theme: light", "light"), ("theme: dark", "dark"), ("theme: system", "light")]
    page.emulate_media(color_scheme="dark")
    expect(root).to_have_attribute("data-theme", "dark")


def test_a_failed_point_is_shown_with_its_reason(open_report):
    page = open_report()
    expect(page.locator(".failures")).to_contain_text("jumprelu-48-failing: failed: the loss is")
    row = page.locator("tr[data-point=jumprelu-48-failing]")
    expect(row.locator(".state.failed")).to_be_visible()
    expect(row.locator(".reason")).to_contain_text("the loss is")
    expect(page.locator("#summary")).to_contain_text("8 of 9 points are done; 1 failed.")


def test_links_lead_from_a_search_to_a_latent_its_meta_latents_and_back(open_report):
    page = open_report()
    page.locator("#explorer").scroll_into_view_if_needed()
    page.locator("#search").fill("people")
    link = page.locator("#results a").first
    expect(link).to_contain_text("people")
    link.click()
    title = page.locator("#card-title")
    latent = f"latent {link.get_attribute('data-latent')} #"
    expect(title).to_have_text(latent)
    expect(link).to_have_attribute("aria-current", "true")
    expect(page.locator("#card mark").first).to_be_visible()
    meta = page.locator("#card .weights a", has_text="meta-latent").first
    name = meta.inner_text()
    meta.click()
    expect(title).to_have_text(f"{name} #")
    expect(title).to_be_focused()
    page.locator("#card .weights a").first.click()
    expect(title).to_have_text(re.compile(r"^latent \d+ #"))
    page.go_back()
    expect(title).to_have_text(f"{name} #")
    page.go_back()
    expect(title).to_have_text(latent)


def test_a_link_to_a_latent_opens_its_card(open_report, sweep):
    name = point(sweep, "topk-48-k4-seed1").name
    page = open_report(f"#/{name}/5")
    expect(page.locator("#card-title")).to_have_text("latent 5 #")
    expect(page.locator("#card-title")).to_be_in_viewport()
    (study,) = (folder for folder in (sweep / "latents").iterdir() if results(folder)["study"]["sae"]["point"] == name)
    row = pq.read_table(study / "latents.parquet").to_pylist()[5]
    raised = page.locator("#card .tokens li").evaluate_all("all => all.map((one) => one.firstChild.textContent)")
    assert raised == [one["token"] for one in row["promoted"]]
    quoted = page.locator("#card .examples q").evaluate_all("all => all.map((one) => one.textContent)")
    expected = [one["before"] + one["token"] + one["after"] for one in row["examples"]]
    assert [text.strip("…") for text in quoted] == expected
    for text, one in zip(page.locator("#card .examples .value").all_inner_texts(), row["examples"], strict=True):
        assert float(text) == pytest.approx(one["activation"], rel=6e-3, abs=6e-3)


@pytest.mark.parametrize("end", ["none/5", "NAME/999999", "NAME/x", "%E0%A4%A/1"])
def test_a_broken_link_does_no_harm(open_report, sweep, end):
    page = open_report("#/" + end.replace("NAME", point(sweep, "topk-48-k4-seed0").name))
    expect(page.locator("#card-title")).to_have_text("No latent chosen")
    expect(rows(page)).to_have_count(5)


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
DECIMALS["dead_fraction"] -= 2  # of a percentage


def test_the_numbers_of_points_equal_those_of_their_files(open_report, sweep):
    page = open_report()
    ungroup_seeds(page)
    found = cells(page)
    assert len(found) == 9 * len(DECIMALS)
    for (name, metric), (value, text) in found.items():
        if name == "jumprelu-48-failing":
            assert (value, text) == (None, "–")  # noqa: RUF001  a dash
            continue
        known = results(sweep / name)
        expected = {**known["training"], **known["metrics"]}[metric]
        assert float(value) == expected
        assert is_rounded(text, expected, DECIMALS[metric])


def test_grouped_seeds_show_mean_and_standard_deviation(open_report, sweep):
    page = open_report()
    for (names, metric), (value, text) in cells(page).items():
        if names == "jumprelu-48-failing" or metric not in METRICS:
            continue
        members = [results(sweep / name)["metrics"][metric] for name in names.split()]
        assert len(members) == 2
        assert float(value) == statistics.fmean(members)
        assert is_rounded(text, float(value), DECIMALS[metric])
        spread = page.locator(f"tr[data-point='{names}'] td[data-name={metric}] small[data-spread]")
        assert float(spread.get_attribute("data-spread")) == statistics.stdev(members)
        assert is_rounded(spread.inner_text().removeprefix("±"), statistics.stdev(members), DECIMALS[metric])


@pytest.mark.parametrize(("task", "section"), [("stitch", "stitching-body"), ("meta_sae", "meta-body")])
def test_the_numbers_of_studies_equal_those_of_their_files(open_report, sweep, task, section):
    page = open_report()
    seen = set()
    for at in range(4):
        page.locator(f"#{section} select").select_option(str(at))
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


def test_axe_finds_nothing_serious(open_report, sweep):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_report(f"#/{point(sweep, 'topk-48-k4-seed0').name}/5")
    expect(page.locator("#card-title")).to_have_text("latent 5 #")
    draw_all(page)
    page.get_by_text("Numbers").first.click()
    page.locator("#shared summary").click()
    for width, theme in ((1000, "light"), (1000, "dark"), (400, "light")):
        set_view(page, width, theme)
        found = axe.run(page).response["violations"]
        listed = [(one["id"], one["impact"], [node["target"] for node in one["nodes"]][:5]) for one in found]
        assert [one for one in listed if one[1] in ("serious", "critical")] == []


@pytest.mark.parametrize(
    ("write", "clicks"), [(write_report_of_points, CLICKS_ON_POINTS), (write_report_of_latents, CLICKS_ON_LATENTS)]
)
def test_a_large_report_is_below_40_mb_and_responds(browser, tmp_path, write, clicks):
    report = write(tmp_path / "large")
    assert report.stat().st_size < 40e6
    with opened(browser, report) as page:
        for click in clicks:
            print(f"{click.__name__}: {time_click(page, click):.0f} ms")  # benchmarks/report_page.py times them
