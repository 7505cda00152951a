"""The report as a whole: no requests, no overflow, themes, accessibility, and the size of large ones."""

import itertools

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import expect

from tests.integration.pages import (
    CLICKS_ON_LATENTS,
    CLICKS_ON_POINTS,
    THEMES,
    WIDTHS,
    draw_all,
    opened,
    time_click,
)
from tests.integration.report_page.reading import IN_CHROMIUM, chart, set_view
from tests.integration.synthetic_reports import write_report_of_latents, write_report_of_points
from tests.tasks.conftest import point

pytestmark = IN_CHROMIUM


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


def test_no_button_of_a_chart_leaves_the_page(open_report):
    page = open_report()
    figure = chart(page, "NMSE against L0")
    figure.locator(".chart").hover()
    buttons = figure.locator(".modebar-btn")
    titles = buttons.evaluate_all("all => all.map((one) => one.dataset.title)")
    assert "Download the chart as a PNG" in titles
    assert not [title for title in titles if "share" in title.lower() or "cloud" in title.lower()]
    for at in range(len(titles)):
        buttons.nth(at).click()
    address = page.url
    page.wait_for_timeout(500)
    assert (page.url, len(page.context.pages)) == (address, 1)  # a request fails the test as it ends
    assert page.locator(".chart").first.evaluate("area => area._context.plotlyServerURL") == ""


def test_links_of_sections_land_at_their_headings(open_report):
    page = open_report("#meta")  # which studies push down when they are decoded
    page.emulate_media(reduced_motion="reduce")
    expect(page.locator("#meta-body dl")).to_be_visible()
    names = page.locator("nav a").evaluate_all("all => all.map((a) => a.hash.slice(1))")
    assert names[-3:] == ["meta", "sizes", "explorer"]
    for name in ("meta", *reversed(names)):
        if page.url.rpartition("#")[2] != name:
            page.locator(f"nav a[href='#{name}']").click()
        page.wait_for_timeout(400)  # charts and results that come into view are drawn
        top = page.locator(f"#{name} h2").evaluate("heading => heading.getBoundingClientRect().top")
        assert 0 < top < 120, name


def test_an_unknown_anchor_is_reported(open_report):
    page = open_report("#nowhere")
    expect(page.locator("#unknown")).to_have_text(
        "The address ends in #nowhere, but this page has no such section or latent."
    )
    page.locator("nav a").first.click()
    expect(page.locator("#unknown")).to_be_hidden()


def test_paper_is_white(open_report):
    page = open_report(theme="dark")
    drawn = "area => [area.layout.font.color, area.layout.width ?? null]"
    area = chart(page, "NMSE against L0").locator(".chart")
    screen = area.evaluate(drawn)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.wait_for_timeout(300)
    assert area.evaluate(drawn) == ["#1b1f24", 316]
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_timeout(300)
    assert (area.evaluate(drawn)[0], page.locator("html").get_attribute("data-theme")) == (screen[0], "dark")


def test_nothing_overflows_paper(open_report, sweep):
    page = open_report(f"#/{point(sweep, 'topk-48-k4-seed0').name}/5", width=700)  # pixels of A4 with margins
    expect(page.locator("#card .bars")).to_be_visible()
    draw_all(page)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 700


def test_the_theme_can_be_chosen(open_report):
    page = open_report()
    button, root = page.locator("#theme"), page.locator("html")
    seen = []
    for _ in range(3):
        button.click()
        seen.append((button.inner_text(), root.get_attribute("data-theme")))
    assert seen == [("Theme: light", "light"), ("Theme: dark", "dark"), ("Theme: system", "light")]
    page.emulate_media(color_scheme="dark")
    expect(root).to_have_attribute("data-theme", "dark")


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


@pytest.mark.long
@pytest.mark.parametrize(
    ("write", "clicks"), [(write_report_of_points, CLICKS_ON_POINTS), (write_report_of_latents, CLICKS_ON_LATENTS)]
)
def test_a_large_report_is_below_40_mb_and_responds(browser, tmp_path, write, clicks):
    report = write(tmp_path / "large")
    assert report.stat().st_size < 40e6
    with opened(browser, report) as page:
        for click in clicks:
            print(f"{click.__name__}: {time_click(page, click):.0f} ms")  # benchmarks/report_page.py times them
