"""The page as a file: nothing in it breaks out of its place, and nothing in it asks for anything outside."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sae_sweeps.launchers.slurm.snapshot import snapshot
from sae_sweeps.report import page as module
from sae_sweeps.report.page import SCRIPTS, SOURCES, architecture_colors, page, source
from sae_sweeps.runtime.provenance import PROJECT
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import FAILED, State
from tests.report.made import compared, some_metrics
from tests.report.reading import Page

NASTY = "a</script><!--data--><script>alert(1)</script><!-- \"b\" 'c' & &lt; ü → 𝄞\n\t\\u003c <!--blocks--> {0} \u2028"
INSTRUCTIONS = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "ping"}


def unlocated(page: str) -> str:
    """A page without what is packed, which is not looked into before it is unpacked."""
    return re.sub(r'<script type="application/gzip".*?</script>', "", page, flags=re.DOTALL)


@pytest.fixture(scope="module")
def written() -> str:
    """A page on two points, one of which failed, with nothing special in it."""
    points = [compared("k=2", **some_metrics(0)), compared("k=3", state=State(FAILED, "no space"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "plotly", lambda: "library")
        return page("sweep first", points, {}, 0)


def test_names_and_reasons_stay_text_whatever_is_in_them():
    point = replace(
        compared("k=2", state=State(FAILED, NASTY)),
        sweep=Sweep(Path("outputs") / NASTY.replace("/", "|")),
        name=NASTY,
    )
    point.config["model"]["name"] = NASTY
    other = replace(compared("k=3", name="other", **some_metrics(1)), sweep=Sweep(Path(NASTY.replace("/", "|") + "2")))
    followed = {f"{NASTY}: stitch": {"state": "failed", "reason": NASTY}}
    shown = Page(page(NASTY, [point, other], followed, 0))
    plain = Page(page("plain", [compared("k=2"), other], followed, 0))
    outline = [(element.tag, element.attributes) for element in shown.elements if element.tag != "li"]
    assert outline == [(element.tag, element.attributes) for element in plain.elements if element.tag != "li"]
    (row, _) = shown.data["points"]
    assert (row["folder"], row["reason"], row["sweep"]) == (NASTY, NASTY, NASTY.replace("/", "|"))
    assert row["key"] == f"{row['sweep']}/{NASTY}"
    assert row["settings"]["model.name"] == NASTY
    assert shown.data["title"] == NASTY
    for tag in ("title", "h1"):
        assert shown.all(tag)[0].text == NASTY
    assert shown.by_id("failures").text == f"{NASTY}: failed: {NASTY}{NASTY}: stitch: failed: {NASTY}"
    assert row["label"].startswith(f"{row['sweep']}: ")
    assert shown.by_id("answer").text.startswith(f"{row['sweep']}2: ")
    assert NASTY in shown.all("li")[0].text


def test_the_page_has_its_policy_before_anything_that_it_is_to_keep_from_a_network(written):
    elements = Page(written).elements
    tags = [element.tag for element in elements]
    (policy,) = [element for element in elements if element.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert elements.index(policy) < tags.index("script")
    assert elements.index(policy) < tags.index("style")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.attributes["content"].split(";"))
    assert rules["default-src"] == "'none'"
    assert not {"connect-src", "frame-src", "font-src", "worker-src"} & rules.keys()
    for allowed in rules.values():
        assert set(allowed.split()) <= {"'none'", "'unsafe-inline'", "data:", "blob:"}


def test_nothing_in_the_page_names_anything_outside_of_it(written):
    for element in Page(written).elements:
        for name in INSTRUCTIONS & element.attributes.keys():
            assert element.attributes[name].startswith("#"), (element.tag, name)
        assert element.tag not in {"link", "iframe", "object", "embed", "base", "img"}
    text = unlocated(written)
    assert not re.findall(r"https?:|wss?:|url\(|@import", text)
    assert not re.findall(r"\b(?:fetch|import|importScripts|XMLHttpRequest|WebSocket|EventSource|sendBeacon)\(", text)


def test_every_script_is_in_the_page_once_and_in_order(written):
    run = [element.text.strip() for element in Page(written).all("script") if "type" not in element.attributes]
    assert run == [source(f"{name}.js").strip() for name in ("theme", *SCRIPTS)]
    assert (SCRIPTS[0], SCRIPTS[-1]) == ("basics", "main")
    assert {file.stem for file in SOURCES.glob("*.js")} == {"theme", *SCRIPTS}
    (style,) = Page(written).all("style")
    assert style.text.strip() == (source("page.css") + architecture_colors()).strip()


def test_no_place_of_the_page_is_left_unfilled(written):
    assert not re.findall(r"<!--\w+-->", written)
    assert Page(written).unpacked("plotly") == "library"


def test_every_element_that_a_script_looks_for_by_its_name_is_there():
    scripts = "".join(file.read_text() for file in SOURCES.glob("*.js"))
    asked = set(re.findall(r'getElementById\("([^"]+)"\)', scripts))
    asked |= set(re.findall(r'querySelector(?:All)?\([`"]#([\w-]+)', scripts))
    asked |= set(re.findall(r'studySection\("([^"]+)"', scripts))
    made = set(re.findall(r'\bid: "([^"]+)"|\.id = "([^"]+)"', scripts))
    there = [element.attributes["id"] for element in Page(source("page.html")).elements if "id" in element.attributes]
    assert len(asked) > 15
    assert asked <= {*there, *(name for names in made for name in names)}
    assert len(there) == len(set(there))
    for reference in re.findall(r'(?:href="#|aria-labelledby=")([\w-]+)', source("page.html")):
        assert reference in there


def test_the_library_is_in_the_page_as_it_came(swept):
    from plotly.offline import get_plotlyjs

    assert Page((swept / "report.html").read_text()).unpacked("plotly") == get_plotlyjs()


def test_jobs_have_the_files_of_the_page_with_their_code(tmp_path):
    code = snapshot(tmp_path)
    files = [file for file in SOURCES.iterdir() if file.is_file()]
    assert {file.suffix for file in files} == {".html", ".css", ".js"}
    for file in files:
        assert (code / file.relative_to(PROJECT)).read_bytes() == file.read_bytes()


def test_a_change_of_the_page_is_another_snapshot(tmp_path, monkeypatch):
    from sae_sweeps.launchers.slurm import snapshot as taken

    package = tmp_path / "project" / "sae_sweeps"
    package.mkdir(parents=True)
    monkeypatch.setattr(taken, "PROJECT", package.parent)
    folders = set()
    for name in ("page.html", "page.css", "main.js"):
        (package / name).write_text(name)
        folders.add(snapshot(tmp_path / "slurm"))
    assert len(folders) == 3
