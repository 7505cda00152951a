"""Tables copied as text and saved as CSV files, charts saved as numbers and pictures, and the help of columns."""

import csv
import io
import re
import struct
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Locator, Page, expect

from tests.integration.report_page.reading import IN_CHROMIUM, chart, results, rows, traces, ungroup_seeds, values
from tests.tasks.conftest import point

pytestmark = IN_CHROMIUM


def tools(page: Page, name: str) -> Locator:
    return page.get_by_role("group", name=f"Copy or save: {name}", exact=True)


def save(page: Page, name: str, button: str, folder: Path) -> Path:
    """Click a button that saves a file, and return the file."""
    with page.expect_download() as download:
        tools(page, name).get_by_role("button", name=button, exact=True).click()
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


def read_csv(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))


def test_the_table_of_points_is_saved_with_all_digits_and_spreads(open_report, tmp_path):
    page = open_report()
    found = read_csv(save(page, "Table of points", "CSV", tmp_path))
    assert [float(row["NMSE"]) if row["NMSE"] else None for row in found] == values(page, "nmse")
    spreads = page.locator("#points-table td[data-name=nmse] [data-spread]")
    shown = [float(text) for text in spreads.evaluate_all("all => all.map((one) => one.dataset.spread)")]
    assert [float(row["NMSE, standard deviation"]) for row in found if row["NMSE"]] == shown
    shown = page.locator("#points-table tbody tr").evaluate_all("all => all.map((one) => one.dataset.point)")
    assert [row["points"] for row in found] == shown
    ungroup_seeds(page)
    (failed,) = [row for row in read_csv(save(page, "Table of points", "CSV", tmp_path)) if row["NMSE"] == ""]
    assert re.match("failed.*; the loss is", failed["State"])


def test_a_table_is_copied_as_text_with_tabs(open_report):
    page = open_report()
    page.context.grant_permissions(["clipboard-read"])
    tools(page, "Table of points").get_by_role("button", name="copy").click()
    expect(tools(page, "Table of points").get_by_role("status")).to_have_text("copied 5 rows")
    lines = [line.split("\t") for line in page.evaluate("navigator.clipboard.readText()").split("\n")]
    assert {len(line) for line in lines} == {len(lines[0])}
    at = lines[0].index("NMSE")
    assert [float(line[at]) if line[at] else None for line in lines[1:]] == values(page, "nmse")


def test_every_table_and_chart_can_be_copied_and_saved(open_report, sweep):
    page = open_report(f"#/{point(sweep, 'topk-48-k4-seed0').name}/5")
    expect(page.locator("#card .bars")).to_be_visible()
    for box in page.locator(".scroll").all():
        assert box.evaluate("(one) => one.previousElementSibling.className") == "tools"
    names = page.locator(".chart").evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))")
    assert len(names) > 15
    for name in [*names, "Activations of latent 5"]:
        assert tools(page, name).get_by_role("button").all_inner_texts() == ["copy", "CSV", "PNG", "SVG"]


def test_a_chart_is_saved_as_its_numbers_and_as_pictures_with_its_title(open_report, tmp_path):
    page = open_report()
    title = "NMSE against L0"
    chart(page, title)
    numbers = read_csv(save(page, title, "CSV", tmp_path))
    plotted = [y for trace in traces(page, title) for y in trace["y"]]
    assert sorted(float(row["NMSE"]) for row in numbers) == sorted(set(plotted))  # without the fronts
    picture = save(page, title, "PNG", tmp_path).read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width == 2400
    assert height >= 1600  # more with a legend
    drawing = save(page, title, "SVG", tmp_path).read_text(encoding="utf-8")
    assert drawing.startswith("<svg")
    assert title in drawing


def test_a_column_is_explained_to_keyboard_and_pointer(open_report):
    page = open_report()
    help_box, heading = page.locator("#help"), page.locator("#points-table th[data-name=dead_fraction] button")
    for show in (heading.focus, heading.hover):
        page.locator("#theme").focus()
        page.locator("h1").hover()
        expect(help_box).to_be_hidden()
        show()
        expect(help_box).to_contain_text(re.compile(r"latents active on none .* measured on [\d,]+ held-out tokens"))
        page.keyboard.press("Escape")
        expect(help_box).to_be_hidden()
    study = page.locator("#stitching .exported th button").first
    study.focus()
    expect(help_box).to_contain_text(re.compile(r"on [\d,]+ held-out activations"))


def test_every_column_below_a_chart_is_explained(open_report):
    page = open_report()
    page.locator("figure summary").evaluate_all("all => all.forEach((one) => one.click())")
    heads = page.locator("figure details th")
    expect(heads.first).to_be_attached()
    missing = heads.evaluate_all(
        "all => all.filter((one) => one.textContent && !one.querySelector('[data-help]')).map((one) => one.textContent)"
    )
    assert missing == []


def test_the_metrics_of_a_study_are_saved(open_report, sweep, tmp_path):
    page = open_report()
    for task, section in (("stitch", "#stitching-body"), ("meta_sae", "#meta-body"), ("meta_sizes", "#sizes-body")):
        name = page.locator(f"{section} dl").get_attribute("data-study")
        found = read_csv(save(page, f"Metrics of {name}", "CSV", tmp_path))
        known = results(sweep / task / name)["metrics"]
        values = page.locator(f"{section} dl dd").evaluate_all("all => all.map((one) => one.dataset.name)")
        expected = ["" if known[one] is None else known[one] for one in values]
        assert [float(row["Value"]) if row["Value"] else "" for row in found] == expected
        assert all(row["Metric"] for row in found)


def test_what_a_spreadsheet_would_run_is_saved_as_text(open_report):
    page = open_report()
    cells = ["=1+1", "-1", "@x", 'a,"b"\n', -1.5, None]
    assert page.evaluate("(cells) => toCSV([cells])", cells) == '\'=1+1,\'-1,\'@x,"a,""b""\n",-1.5,\n'
    assert page.evaluate("(cells) => toTabs([cells])", cells) == "'=1+1\t'-1\t'@x\ta,\"b\" \t-1.5\t"
    assert rows(page).count() == 5
