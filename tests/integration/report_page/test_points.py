"""The table of points and its charts: sorting, filters, baseline, selection and a failed point."""

import json

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import expect

from tests.integration.pages import column, filters
from tests.integration.report_page.reading import IN_CHROMIUM, chart, rows, table, traces, ungroup_seeds, values

pytestmark = IN_CHROMIUM


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
    filters(page, "dictionary size").select_option("32")
    expect(rows(page)).to_have_count(2)
    expect(page.locator("#points-status")).to_contain_text("2 of 5")
    assert sum(len(trace["x"]) for trace in traces(page, "Dead latents")) == 2
    filters(page, "dictionary size").select_option("")
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
    expect(chart(page, "Training curves").locator(".legend button")).to_have_count(8)  # the failed point has no curve
    for at in (0, 3):
        rows(page).nth(at).get_by_role("checkbox").check()
    labels = [
        text.removesuffix(" (baseline)") for text in rows(page).locator("th label span:last-child").all_inner_texts()
    ]
    chosen = {labels[0], labels[3]}
    expect(page.locator("#settings-status")).to_contain_text("2 selected points.")
    assert {*page.locator("#settings-table thead th").all_inner_texts()[1:]} == chosen
    expect(chart(page, "Training curves").locator(".legend button")).to_have_count(2)
    assert {trace["name"] for trace in traces(page, "Training curves")} == chosen


def test_settings_that_differ_between_selected_points_are_listed(open_report):
    page = open_report()
    for at in (0, 1):
        rows(page).nth(at).get_by_role("checkbox").check()
    found = {row[0]: set(row[1:]) for row in table(page.locator("#settings-table"))}
    assert found["seed"] == {"0", "1"}


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


def test_failures_can_be_dismissed(open_report):
    page = open_report()
    button = page.get_by_role("button", name="Hide failures")
    button.click()
    expect(rows(page)).to_have_count(4)
    expect(page.locator("#failures")).to_be_hidden()
    assert "jumprelu" not in page.locator("#settings-table").text_content().lower()
    button.click()
    expect(rows(page)).to_have_count(5)


def test_missing_results_of_a_failed_point_are_no_differences(open_report):
    page = open_report()
    names = [row[0] for row in table(page.locator("#settings-table"))]
    assert "training.lr" in names
    assert not [name for name in names if name == "commit" or name.startswith("packages.")]


def test_axes_have_a_margin_of_a_tenth(open_report):
    page = open_report()
    for title in ("NMSE against L0", "NMSE against dictionary size", "Training curves"):
        axes = (
            chart(page, title)
            .locator(".chart")
            .evaluate(
                """area => ["x", "y"].map((name) => {
              const { range, type } = area.layout[`${name}axis`];
              const values = area.data.flatMap((trace) => [...trace[name]]).filter((value) => value !== null);
              return [range, type === "log" ? values.map(Math.log10) : values];
            })"""
            )
        )
        for (low, high), plotted in axes:
            margin = 0.099 * (max(plotted) - min(plotted))
            assert min(plotted) - low >= margin
            assert high - max(plotted) >= margin


def test_a_failed_point_is_shown_with_its_reason(open_report):
    page = open_report()
    expect(page.locator(".failures")).to_contain_text("jumprelu-48-failing: failed: the loss is")
    row = page.locator("tr[data-point=jumprelu-48-failing]")
    expect(row.locator(".state.failed")).to_be_visible()
    expect(row.locator(".reason")).to_contain_text("the loss is")
    expect(page.locator("#summary")).to_contain_text("8 of 9 points are done; 1 failed.")


def test_active_latents_have_a_line_per_finished_point(open_report, sweep):
    page = open_report()
    filters(page, "seeds").select_option("")
    results = [json.loads(file.read_text()) for file in sorted(sweep.glob("*topk-*/results.json"))]
    for title, key in (("Active latents per activation", "histogram"), ("Active latents by position", "by_position")):
        figure = chart(page, title)
        drawn = traces(page, title)
        assert len(drawn) == len(results)
        expected = [one["sparsity"][key] for one in results]
        if key == "histogram":
            shares = [[count / sum(one["counts"]) / one["width"] for count in one["counts"]] for one in expected]
        else:
            shares = [[mean for mean in one if mean is not None] for one in expected]
        found = sorted(trace["y"] for trace in drawn)
        assert len(found) == len(shares)
        for line, reference in zip(found, sorted(shares), strict=True):
            assert line == pytest.approx(reference, rel=1e-4)
        figure.get_by_text("Numbers").click()
        expect(figure.locator("table tbody tr").first).to_be_visible()
    expect(page.locator("#sparsity")).to_contain_text("without BOS and other special tokens, where it is:")


@pytest.mark.parametrize("seeds", ["grouped", "apart"])
def test_lines_have_bands_of_the_intervals_below_them(open_report, seeds):
    page = open_report()
    if seeds == "apart":
        ungroup_seeds(page)
    expect(page.locator("#answers li").first).to_contain_text("k 4")
    expect(page.locator("#differences tbody tr").first).to_be_visible()
    found = page.evaluate("rows.filter((row) => row.intervals.nmse).map((row) => [row.mean.nmse, row.intervals.nmse])")
    assert len(found) == (4 if seeds == "grouped" else 8)
    assert all(low < mean < high for mean, (low, high) in found)
    bands = (
        chart(page, "NMSE against dictionary size")
        .locator(".chart")
        .evaluate("area => area.data.filter(({ fill }) => fill === 'toself').map(({ x, y }) => [[...x], [...y]])")
    )
    assert len(bands) == (2 if seeds == "grouped" else 0), "seeds apart are joined by no line"
    for x, y in bands:
        assert x == [32, 48, 48, 32]
        assert sorted(map(float, [y[3], y[0]])) in [ends for _, ends in found]
        assert [y[2], y[1]] in [ends for _, ends in found]
