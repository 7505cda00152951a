"""Links between latents and meta-latents, and the cards they open."""

import json
import re
import shutil

import pyarrow.parquet as pq
import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import expect

from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks.labels import keep_labels
from sae_sweeps.tasks.report import write_page
from tests.conftest import composed
from tests.integration.pages import opened
from tests.integration.report_page.reading import IN_CHROMIUM, results, rows
from tests.integration.synthetic_reports import EXPLORER_MIB
from tests.tasks.conftest import point

pytestmark = IN_CHROMIUM


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
    for at, name in enumerate(("promoted", "suppressed")):
        tokens = page.locator("#card .tokens").nth(at).locator("li")
        shown = tokens.evaluate_all("all => all.map((one) => one.firstChild.textContent)")
        assert shown == [one["token"] for one in row[name]]
    shaded = page.locator("#card .examples q > [title]").evaluate_all("all => all.map((one) => one.title)")
    active = [one["activation"] for example in row["examples"] for one in example["active"]]
    assert [float(title) for title in shaded] == pytest.approx(active, rel=0.06)
    assert len(shaded) > len(row["examples"])
    bars = page.locator("#card .bars span").evaluate_all("all => all.map((one) => Number(one.dataset.count))")
    assert sum(bars) == sum(row["histogram"]["counts"]) > 0
    quoted = page.locator("#card .examples q").evaluate_all("all => all.map((one) => one.textContent)")
    expected = [one["before"] + one["token"] + one["after"] for one in row["examples"]]
    assert [text.strip("…") for text in quoted] == expected
    for text, one in zip(page.locator("#card .examples .value").all_inner_texts(), row["examples"], strict=True):
        assert float(text) == pytest.approx(one["activation"], rel=6e-3, abs=6e-3)


def test_latents_of_all_saes_are_found_and_ordered_by_studies(open_report, sweep):
    page = open_report()
    page.locator("#explorer").scroll_into_view_if_needed()
    form, found = page.locator("#latent-search"), page.locator("#results a")
    page.locator("#card-set").select_option("all")
    form.get_by_label("search").fill("the")
    expect(page.locator("#results-status")).to_contain_text("in 12 SAEs and meta-SAEs")
    sets = found.evaluate_all("all => all.map((one) => one.dataset.set)")
    assert len(set(sets)) > 4
    form.get_by_label("search").fill("")
    form.get_by_label("order").select_option("change-0")
    form.get_by_label("show").select_option("novel-0")
    expect(found.first).to_contain_text(re.compile("MSE [+−]"))  # noqa: RUF001  the sign
    studies = [pq.read_table(file) for file in sweep.glob("stitch/*/latents.parquet")]
    novel = sum(sum(table["novel"].to_pylist()) for table in studies)
    text = page.locator("#results-status").inner_text()
    assert int(re.search(r"(\d+) latents", text).group(1)) <= novel
    shown = [float(re.search(r"MSE (.+)%", one).group(1).replace("−", "-")) for one in found.all_inner_texts()]  # noqa: RUF001
    assert shown == sorted(shown)
    form.get_by_label("reversed").check()
    expect(found.first).not_to_contain_text(f"MSE {shown[0]}")
    link = found.first
    link.click()
    expect(page.locator("#card p", has_text="Novel latent")).to_be_visible()


def test_labels_are_searched_and_shown_as_text(browser, sweep, tmp_path):
    name = point(sweep, "topk-48-k4-seed1").name
    hostile = '<img src=x onerror="alert(1)"> names of <b>Presidents</b> & ${1}'
    lines = [
        {"sae": name, "latent": 5, "text": hostile, "score": 0.75, "source": "<i>Jane</i>"},
        {"sae": name, "latent": 9, "text": "presidents, and other people"},
        {"sae": point(sweep, "batchtopk-32-k4-seed0").name, "latent": 0, "text": "other people"},
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    copy = shutil.copytree(sweep, tmp_path / "outputs" / "first", ignore=shutil.ignore_patterns("checkpoint"))
    keep_labels([Sweep(copy)], composed(f"latents.labels={tmp_path / 'labels.jsonl'}", "task=report"))
    write_page([load_sweep(Sweep(copy))], EXPLORER_MIB)
    with opened(browser, copy / "report.html", f"#/{name}/5") as page:
        label = page.locator("#card .label")
        expect(label.locator("strong")).to_have_text(hostile)
        expect(label.locator("small")).to_have_text("(<i>Jane</i>, score 0.75)")
        assert label.locator("img, b, i").count() == 0
        found, search = page.locator("#results a"), page.locator("#search")
        search.fill("president")
        expect(found).to_have_count(2)
        expect(found.first).to_contain_text(hostile)
        search.fill("other presidents")
        expect(found.first).to_contain_text("latent 9")
        found.first.click()
        expect(label).to_have_text("presidents, and other people")
        page.locator("#card-set").select_option("all")
        search.fill("other people")
        expect(found.nth(1)).to_be_visible()
        assert {found.nth(at).get_attribute("data-latent") for at in (0, 1)} == {"0", "9"}
        search.fill("7")
        expect(found.first).to_contain_text("latent 7")


@pytest.mark.parametrize("end", ["none/5", "NAME/999999", "NAME/x", "%E0%A4%A/1"])
def test_a_broken_link_does_no_harm(open_report, sweep, end):
    page = open_report("#/" + end.replace("NAME", point(sweep, "topk-48-k4-seed0").name))
    expect(page.locator("#card-title")).to_have_text("No latent chosen")
    expect(rows(page)).to_have_count(5)
    expect(page.locator("#unknown")).to_contain_text("no such section or latent")


def test_an_emptied_search_empties_the_card(open_report):
    page = open_report()
    page.locator("#explorer").scroll_into_view_if_needed()
    title, search = page.locator("#card-title"), page.locator("#search")
    expect(page.locator("#results a").first).to_be_visible()
    expect(title).to_have_text("No latent chosen")
    for query, found in (("people", re.compile(r"^latent \d+ #")), ("", "No latent chosen")):
        search.fill(query)
        expect(title).to_have_text(found)
    search.fill("people")
    expect(title).not_to_have_text("No latent chosen")
    search.fill("no such token")
    expect(title).to_have_text("No latent chosen")
