"""The sections on meta-SAEs: squares of shares, and the graph around a meta-latent."""

import pyarrow.parquet as pq
import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import expect

from tests.integration.report_page.reading import IN_CHROMIUM, chart, results, table

pytestmark = IN_CHROMIUM

NODES = """area => area.data.filter((trace) => trace.mode === "markers+text").map((trace) => ({
  name: trace.name, x: [...trace.x], text: [...trace.text], hover: [...trace.hovertext], links: trace.links ?? null,
}))"""


def read_chosen(page, sweep, section: str, task: str):
    """Return the results and the folder of the study that a section shows."""
    folder = sweep / task / page.locator(f"#{section} dl.numbers").get_attribute("data-study")
    return results(folder), folder


def test_the_squares_have_the_shares_of_the_results(open_report, sweep):
    page = open_report()
    known, _ = read_chosen(page, sweep, "sizes-body", "meta_sizes")
    for title, name in (
        ("Meta-latents that sizes share", "shared"),
        ("Meta-latents that sizes share, shuffled directions", "shared_shuffled"),
    ):
        area = chart(page, title).locator(".chart")
        assert area.evaluate("area => area.data[0].z.map((row) => [...row])") == known[name]
        drawn = area.locator(".annotation-text").all_text_contents()
        assert drawn == [f"{100 * share:.1f}%" for row in known[name] for share in row]


def test_the_table_of_sizes_needs_no_script(open_report):
    rows = table(open_report().locator("#sizes > .scroll table"))
    assert len(rows) == 8
    assert {row[0].split(",")[0] for row in rows} == {"BatchTopK 32", "BatchTopK 48", "TopK 32", "TopK 48"}


@pytest.mark.parametrize(
    ("section", "task", "title"),
    [
        ("meta-body", "meta_sae", "Around a meta-latent"),
        ("sizes-body", "meta_sizes", "Around a meta-latent of several sizes"),
    ],
)
def test_the_graph_has_the_latents_that_use_a_meta_latent(open_report, sweep, section, task, title):
    page = open_report()
    _, folder = read_chosen(page, sweep, section, task)
    metas = pq.read_table(folder / "meta_latents.parquet").to_pylist()
    select = page.locator(f"#{section}").get_by_label("Meta-latent in the centre")
    most = max(row["used_by"] for row in metas)
    assert f"used by {most} latents" in select.locator("option").first.inner_text()
    for at in (0, 3):
        select.select_option(str(at))
        page.wait_for_timeout(300)
        number = int(select.locator("option").nth(at).inner_text().split(",")[0])
        others, *saes, centre = chart(page, title).locator(".chart").evaluate(NODES)
        assert centre["text"] == [str(number)]
        shown = sorted(int(text) for trace in saes for text in trace["text"])
        users = sorted(user["latent"] for user in metas[number]["latents"])
        assert shown == users or (len(shown) >= 12 and set(shown) <= set(users))
        assert all(f"weight of meta-latent {number}: " in hover for trace in saes for hover in trace["hover"])
        assert all(hover.startswith("<b>meta-latent ") for hover in others["hover"])
        assert all(trace["links"] for trace in saes if trace["text"])


def test_a_size_can_be_left_out_of_the_graph_and_a_latent_leads_to_its_card(open_report):
    page = open_report()
    figure = chart(page, "Around a meta-latent of several sizes")
    area = figure.locator(".chart")
    before = area.evaluate(NODES)
    figure.locator(".legend button").first.click()
    page.wait_for_timeout(300)
    after = area.evaluate(NODES)
    assert [trace["name"] for trace in after] == [
        trace["name"] for trace in before if trace["name"] != before[1]["name"]
    ]
    assert len(after[0]["x"]) < len(before[0]["x"])  # the meta-latents of its latents are left out too
    link = before[1]["links"][0]
    area.evaluate("(area, link) => { location.hash = link; }", link)
    expect(page.locator("#card-title")).to_have_text(f"latent {before[1]['text'][0]} #")
