"""A report on strangers' sweeps, whose names, reasons, settings and texts are HTML, scripts, links and marks."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Page, expect

from sae_sweeps.report import page as module
from sae_sweeps.report.finished import FinishedStudy, find_finished
from sae_sweeps.runtime.files import write_text
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import collect_points
from sae_sweeps.sweep.point_state import FAILED, State
from sae_sweeps.sweep.sweep_state import read_states
from tests.integration.pages import column, draw_all, filters, opened
from tests.integration.report_page.reading import IN_CHROMIUM, chart, rows

pytestmark = IN_CHROMIUM

# each would call alert, request something or hide text if it were more than text
HOSTILE = (
    "</script></style><script>alert(1)</script><!-- <img src=x onerror=alert(1)> <svg onload=alert(1)> "
    '<a href="javascript:alert(1)">a</a> <a href="https://e.org">b</a> ${alert(1)} `%{x}` &lt;i&gt; <b>c</b><br> '
    "' onmouseover=alert(1) \" \\u003c \u202ed\u202c \u2066e\u2069"
)
HALF, NUL = "\ud800", "\0"  # a name can have the first, which no file of UTF-8 can, and a text in JSON both
NAME = HOSTILE.replace("/", "|")  # of a sweep
SHOWN_HALF = "\\ud800"
TEXTS = ("token", "before", "after")  # fields of examples and promoted tokens


class HostileStudy(FinishedStudy):
    """A study whose tokens are hostile."""

    def read_table(self, name: str, columns: Any = None) -> pa.Table:
        """Return the table with HOSTILE in each example, and in each promoted token."""
        table = super().read_table(name, columns)
        return pa.Table.from_pylist(spoil(table.to_pylist(), TEXTS, HOSTILE + NUL), schema=table.schema)


def spoil(value: Any, keys: tuple[str, ...], text: str) -> Any:
    """Return a JSON value with `text` after each text of the keys, at any depth."""
    if isinstance(value, list):
        return [spoil(one, keys, text) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: one + text if key in keys and isinstance(one, str) else spoil(one, keys, text)
        for key, one in value.items()
    }


def spoil_results(study: FinishedStudy) -> dict[str, Any]:
    """Return the results of a study with hostile settings and sizes, and of an SAE of a stranger if it has one SAE."""
    results = json.loads(json.dumps(study.results))
    results["study"]["settings"]["format"] = HOSTILE + HALF
    for sae in results.get("smaller", {}).values():
        sae["dict_size"] = HOSTILE
    if study.task == "latents":
        results["study"]["sae"] |= {"point": HOSTILE + HALF, "architecture": HOSTILE}
    return results


@pytest.fixture(scope="module")
def report(tmp_path_factory, sweep) -> Path:
    """The report of the package's sweep with hostile texts in every place that a stranger can write to."""
    there, named, other = Sweep(sweep), Sweep(sweep), Sweep(sweep.parent / "other")
    named.name, other.name = NAME + HALF, f"other {NAME}"  # only on the page: the files stay where they are
    points = []
    for point in collect_points(there, read_states(there).points):
        config = {**point.config, "model": {**point.config["model"], "name": HOSTILE + NUL, "hook": HOSTILE + HALF}}
        config["dataset"] = {**point.config["dataset"], "files": [HOSTILE], "subset": HOSTILE}
        results = point.results and {**point.results, "provenance": {"commit": HOSTILE, "packages": {HOSTILE: HOSTILE}}}
        is_failed = point.state.state == FAILED
        state = State(FAILED, HOSTILE + NUL) if is_failed else point.state
        one = other if is_failed else named
        points.append(replace(point, sweep=one, config=config, results=results, state=state))
    studies = [HostileStudy(named, study.task, study.folder, spoil_results(study)) for study in find_finished(there)]
    outcomes = {f"{NAME}: stitch": {"state": FAILED, "reason": HOSTILE + NUL + HALF}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "find_finished", lambda one: studies if one is named else [])
        text = module.build_page(NAME + HALF, points, outcomes, 2**22, None, [named, other])
    file = tmp_path_factory.mktemp("hostile") / "report.html"
    write_text(file, text)
    return file


@pytest.fixture
def page(browser, report) -> Iterator[Page]:
    """The report, opened; at the end it must have had no request, no message and no dialog."""
    with opened(browser, report) as page:
        yield page


def require_no_more_elements(page: Page) -> None:
    """Check that no text has become an element, a link or the attribute of an element."""
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert page.locator("img, iframe, object, embed, base, link").count() == 0
    assert page.locator("script:not([type])").count() <= len(module.SCRIPTS) + 2  # with the theme, and Plotly
    attributes = page.evaluate("[...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames())")
    assert not [name for name in attributes if name.startswith("on")]
    links = page.locator("a").evaluate_all("all => all.map((a) => a.getAttribute('href') ?? a.href?.baseVal ?? '')")
    assert all(link.startswith("#") for link in links if link), links


def test_every_control_works_and_every_text_is_shown_as_it_is(page):
    expect(page).to_have_title(NAME.encode("ascii", "backslashreplace").decode() + SHOWN_HALF)
    expect(page.locator("#failures")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(page.locator("#failures")).to_contain_text("\\x00")
    draw_all(page)
    assert NAME in page.locator("#points-table").text_content()
    column(page, "l0").click()
    filters(page, "seeds").select_option("")
    filters(page, "state").select_option("failed")
    expect(rows(page)).to_have_count(1)
    expect(rows(page).locator(".reason")).to_contain_text("</script></style><script>alert(1)</script><!--")
    filters(page, "state").select_option("")
    filters(page, "search").fill("onerror=alert")
    expect(rows(page)).to_have_count(9)
    filters(page, "search").fill("")
    options = filters(page, "baseline").locator("option").all()
    filters(page, "baseline").select_option(index=len(options) - 1)
    rows(page).nth(0).get_by_role("checkbox").check()
    page.locator("#theme").click()
    for summary in page.locator("summary").all():
        summary.click()
    assert HOSTILE in page.locator("#shared-table").text_content()
    require_no_more_elements(page)


def test_charts_show_labels_as_they_are(page):
    chart(page, "NMSE against L0").locator(".points path").first.hover(force=True)
    expect(page.locator("#sparsity .hoverlayer").first).to_contain_text("<img src=x onerror=alert(1)>")
    filters(page, "seeds").select_option("")
    for title in ("Dead latents", "NMSE against L0", "Training curves"):
        figure = chart(page, title)
        figure.get_by_text("Numbers").click()
        if title != "NMSE against L0":  # there a series is of several points
            assert NAME in figure.locator("table").text_content()
    ticks = chart(page, "Dead latents").locator(".xtick text").all_text_contents()
    assert "<img src=x onerror=alert(1)>" in "".join(ticks)
    chart(page, "Best matches in smaller SAEs")
    chart(page, "Explained variance of the decoder directions")
    require_no_more_elements(page)


def test_a_chart_can_be_saved_as_a_picture(page, tmp_path):
    figure = chart(page, "NMSE against L0")
    figure.hover()
    with page.expect_download() as download:
        figure.locator(".modebar-btn[data-title*=Download]").click()
    download.value.save_as(tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_the_explorer_shows_tokens_as_they_are(page):
    page.locator("#explorer").scroll_into_view_if_needed()
    expect(page.locator("#card-set option").first).to_be_attached()
    assert HOSTILE in page.locator("#card-set").text_content()
    assert SHOWN_HALF in page.locator("#card-set").text_content()
    page.locator("#search").fill("onerror=alert(1)>")
    expect(page.locator("#results a").first).to_be_visible()
    page.locator("#results a").nth(1).click()
    expect(page.locator("#card-title")).to_be_focused()
    assert HOSTILE in page.locator("#card .examples q").first.text_content()
    assert HOSTILE in page.locator("#card .tokens li").first.text_content()
    for name in ("random latent", "show more"):
        if page.get_by_role("button", name=name).is_visible():
            page.get_by_role("button", name=name).click()
    page.locator("#card-set").select_option(index=1)
    page.locator("#card a").first.click()
    require_no_more_elements(page)


def test_the_policy_stops_scripts_that_are_not_the_pages(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.hacked = 1";
          document.head.append(script);
          document.body.insertAdjacentHTML("beforeend", `<img src=x onerror="window.hacked = 2">
            <base href="https://e.org/"><a id=evil href="javascript:window.hacked=3">x</a>
            <style>body { display: none }</style>`);
          document.getElementById("evil").click();
        }"""
    )
    page.wait_for_timeout(300)
    assert page.evaluate("[typeof window.hacked, document.baseURI, getComputedStyle(document.body).display]") == [
        "undefined",
        report.as_uri(),
        "block",
    ]
    page.close()
