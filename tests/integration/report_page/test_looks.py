"""How points look: each in its own way, and only what has a rival with a star. The page is made without training."""

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Page, expect

from sae_sweeps.report.page import build_page
from tests.integration.pages import filters, opened
from tests.integration.report_page.reading import IN_CHROMIUM, chart, rows
from tests.report.made import compared, some_metrics

pytestmark = IN_CHROMIUM


def measured(nmse: float, l0: float) -> dict[str, float]:
    return {**some_metrics(0), "nmse": nmse, "l0": l0, "dead_fraction": 0.0005, "held_out_tokens": 32_768}


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory) -> Iterator[Page]:
    """Two sweeps: of k, seeds and learning rates; and of one point as good as another, and one that diverged."""
    points = [
        compared(
            f"k={k}",
            f"seed={seed}",
            f"training.lr={lr}",
            name=f"k{k}-{seed}-{lr}",
            **measured(0.1 + lr + seed / 100, k),
        )
        for k in (16, 32)
        for seed in (0, 1)
        for lr in (0.01, 0.02)
    ]
    others = [("dict_size=100", 0.05), ("dict_size=200", 0.05), ("dict_size=300", 40.0), ("k=64", 0.04)]
    points += [compared(word, sweep="other", name=word, **measured(nmse, 32.0)) for word, nmse in others]
    file = tmp_path_factory.mktemp("looks") / "report.html"
    file.write_text(build_page("looks", points, {}, 0))
    with opened(browser, file, width=1440) as page:
        yield page


def test_every_point_has_its_own_colour_and_dash_in_the_table(page):
    filters(page, "seeds").select_option("")
    expect(rows(page)).to_have_count(12)
    dots = page.locator("#points-table .swatch").evaluate_all("all => all.map((one) => one.outerHTML)")
    assert len(set(dots)) == 12
    styles = page.evaluate("report.points.map((point) => [styleOf(point).color, styleOf(point).dash])")
    assert len({json.dumps(style) for style in styles}) == 12
    filters(page, "seeds").select_option("yes")


def test_points_of_a_chart_look_as_in_the_table_and_its_legend(page):
    figure = chart(page, "NMSE against L0")
    entries = figure.locator(".legend button")
    expect(entries).to_have_count(8)
    listed = "area.data.flatMap(({ marker, labels = [] }) => labels.map((label, at) => [label, marker.color[at]]))"
    drawn = figure.locator(".chart").evaluate(f"area => {listed}")
    expected = page.evaluate("rows.map((row) => [row.label, cssColor(styleOf(row.points[0]).color)])")
    assert sorted(drawn) == sorted(expected)
    assert len({color for _, color in drawn}) == 8
    assert entries.first.inner_text() == "first, 3072 latents, k 16, lr 0.01"
    titles = entries.evaluate_all("all => all.map((one) => one.title)")
    assert sorted(titles) == sorted(label for label, _ in expected)
    assert figure.locator(".infolayer .legend").count() == 0  # none inside of the plot


def test_small_shares_have_their_own_ticks(page):
    ticks = chart(page, "Dead latents").locator(".ytick").all_text_contents()
    assert len(ticks) > 2
    assert len(set(ticks)) == len(ticks)


def test_an_entry_of_a_legend_hides_its_points_and_shows_them_again(page):
    figure = chart(page, "NMSE against L0")
    count = "area => area.data.flatMap((trace) => trace.labels ?? []).length"
    entry = figure.locator(".legend button").first
    for pressed, points in (("false", 7), ("true", 8)):
        entry.click()
        expect(entry).to_have_attribute("aria-pressed", pressed)
        page.wait_for_timeout(300)
        expect(entry).to_be_focused()
        assert figure.locator(".chart").evaluate(count) == points


def test_only_what_has_a_rival_of_equal_k_has_a_star(page):
    starred = page.locator("td[data-name=nmse].best").evaluate_all(
        "all => all.map((one) => one.closest('tr').dataset.point)"
    )
    assert starred == ["first/k16-0-0.01 first/k16-1-0.01"]
    diverged = page.locator("tr[data-point='other/dict_size=300'] td[data-name=nmse]")
    expect(diverged).to_contain_text("worse than the mean")
    assert page.locator("tr[data-point='other/dict_size=300'] td.best").count() == 0


def test_the_column_of_dead_latents_has_the_number_of_tokens(page):
    expect(page.locator("#points-table th[data-name=dead_fraction]")).to_contain_text("on 32,768 tokens")
