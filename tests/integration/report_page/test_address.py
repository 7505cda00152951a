"""The address has the filters, the order and the points that are ticked, and a copied one restores them."""

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Page, expect

from tests.integration.pages import column, filters
from tests.integration.report_page.reading import IN_CHROMIUM, rows, values
from tests.tasks.conftest import point

pytestmark = IN_CHROMIUM


def address(page: Page) -> str:
    """Return what follows the file's name, once it has been written."""
    page.wait_for_function("() => rewriting === null")
    return page.evaluate("location.hash")


def expect_address(page: Page, end: str) -> None:
    page.wait_for_function("(end) => location.hash.endsWith(end)", arg=end)


def ticked(page: Page) -> list[str]:
    return page.locator("#points-table tr.selected").evaluate_all("all => all.map((one) => one.dataset.point)")


def test_an_address_restores_filters_order_baseline_and_ticked_points(open_report):
    page = open_report()
    assert address(page) == ""
    filters(page, "seeds").select_option("")
    filters(page, "search").fill("topk seed")
    filters(page, "Dictionary size").select_option("48")
    filters(page, "baseline").select_option(index=2)
    column(page, "l0").click()
    column(page, "l0").click()
    for at in (1, 2):
        rows(page).nth(at).get_by_role("checkbox").check()
    link = address(page)
    other = open_report(link)
    for one in (page, other):
        expect(rows(one)).to_have_count(4)
    assert other.locator("#points-table").inner_text() == page.locator("#points-table").inner_text()
    assert ticked(other) == ticked(page)
    assert len(ticked(page)) == 2
    for label in ("search", "Dictionary size", "seeds", "baseline", "architecture"):
        assert filters(other, label).input_value() == filters(page, label).input_value()
    expect(other.locator("#settings-status")).to_contain_text("2 selected points.")
    assert address(other) == link


def test_links_inside_the_page_keep_the_choices_and_the_way_back_restores_them(open_report, sweep):
    page = open_report()
    column(page, "l0").click()
    expect_address(page, "#?sort=l0")
    page.get_by_role("link", name="Cost").click()
    expect_address(page, "#cost?sort=l0")
    column(page, "fvu").click()
    expect_address(page, "#cost?sort=fvu")
    page.evaluate(f"location.hash = '#/{point(sweep, 'topk-48-k4-seed0').name}/5'")
    expect(page.locator("#card-title")).to_have_text("latent 5 #")
    expect_address(page, "/5?sort=fvu")
    page.go_back()
    page.go_back()
    expect(page.locator("th[data-name=l0]")).to_have_attribute("aria-sort", "ascending")
    assert values(page, "l0")[:4] == sorted(values(page, "l0")[:4])


def test_an_address_restores_the_search_for_latents_and_two_cards(open_report, sweep):
    page = open_report()
    page.locator("#explorer").scroll_into_view_if_needed()
    page.locator("#card-set").select_option("all")
    form = page.locator("#latent-search")
    form.get_by_label("search").fill("the")
    form.get_by_label("order").select_option("frequency")
    form.get_by_label("reversed").check()
    page.get_by_role("button", name="keep beside others").click()
    page.locator("#results a").nth(3).click()
    expect(page.locator("#pinned")).to_be_visible()
    link = address(page)
    other = open_report(link)
    for name in ("#pinned-title", "#card-title"):
        expect(other.locator(name)).to_have_text(page.locator(name).inner_text())
    other.locator("#explorer").scroll_into_view_if_needed()
    read_choices = "all => all.map((one) => one.type === 'checkbox' ? one.checked : one.value)"
    chosen = [one.locator("#latent-search :is(input, select)").evaluate_all(read_choices) for one in (page, other)]
    assert chosen[0] == chosen[1]
    assert chosen[0][:3] == ["all", "the", "frequency"]
    expect(other.locator("#results a")).to_have_count(page.locator("#results a").count())
    assert other.locator("#results").inner_text() == page.locator("#results").inner_text()
    assert address(other) == link


def test_an_address_restores_the_curve_and_the_studies(open_report):
    page = open_report()
    curves, sections = page.locator("#curve-controls"), ("#stitching-body", "#meta-body", "#sizes-body")
    curves.get_by_label("Curve").select_option("l0")
    curves.get_by_label("Smoothing").fill("0.5")
    curves.get_by_label("Logarithmic").check()
    for section in sections:
        page.locator(f"{section} > .controls select").select_option("2")
    link = address(page)
    other = open_report(link)
    for section in sections:
        expect(other.locator(f"{section} > .controls select")).to_have_value("2")
        name = page.locator(f"{section} dl").get_attribute("data-study")
        expect(other.locator(f"{section} dl")).to_have_attribute("data-study", name)
    restored = other.locator("#curve-controls")
    expect(restored.get_by_label("Curve")).to_have_value("l0")
    expect(restored.get_by_label("Smoothing")).to_have_value("0.5")
    expect(restored.get_by_label("Logarithmic")).to_be_checked()
    assert address(other) == link
    for section in sections:
        other.locator(f"{section} > .controls select").select_option("0")
    restored.get_by_label("Smoothing").fill("0")
    restored.get_by_label("Curve").select_option("mse")
    assert address(other) == ""


CHOICES = (
    "sort=x&k=99&baseline=x&point=x",
    "sae=x&order=change-7&show=novel-7&beside=/x/1",
    "stitch=x&meta_sae=x&curve=x&smoothing=x&scale=linear",
)


@pytest.mark.parametrize("choices", CHOICES)
def test_unknown_choices_do_no_harm(open_report, choices):
    page = open_report(f"#points?{choices}")
    expect(rows(page)).to_have_count(5)
    expect(page.locator("#stitching-body select")).to_have_value("0")
    assert address(page) == ("#points?scale=linear" if "scale" in choices else "#points")
