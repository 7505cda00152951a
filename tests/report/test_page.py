"""The page as a file: data is escaped everywhere, and nothing requests anything from a network."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sae_sweeps.launchers.slurm.snapshot import copy_code
from sae_sweeps.report import page as module
from sae_sweeps.report.blocks import Blocks
from sae_sweeps.report.page import ASSETS, SCRIPTS, architecture_colors, build_page, read_asset
from sae_sweeps.runtime.provenance import PROJECT
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.point_state import FAILED, State
from tests.report.conftest import LIBRARY
from tests.report.made import compared, some_metrics
from tests.report.reading import Page

NASTY = "a</script><!--data--><script>alert(1)</script><!-- \"b\" 'c' & &lt; ü → 𝄞\n\t\\u003c <!--blocks--> {0} \u2028"
VISIBLE = NASTY.replace("\u2028", "\\u2028")  # in the HTML: what cannot be seen is an escape
URL_ATTRIBUTES = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "ping"}


def remove_blocks(page: str) -> str:
    """A page without its compressed blocks."""
    return re.sub(r'<script type="application/gzip".*?</script>', "", page, flags=re.DOTALL)


@pytest.fixture(scope="module")
def written() -> str:
    """A page on two points, one of which failed."""
    points = [compared("k=2", **some_metrics(0)), compared("k=3", state=State(FAILED, "no space"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_plotly", lambda: LIBRARY)
        return build_page("sweep first", points, {}, 0)


def test_names_and_reasons_are_escaped():
    point = replace(
        compared("k=2", state=State(FAILED, NASTY)),
        sweep=Sweep(Path("outputs") / NASTY.replace("/", "|")),
        name=NASTY,
    )
    point.config["model"]["name"] = NASTY
    other = replace(compared("k=3", name="other", **some_metrics(1)), sweep=Sweep(Path(NASTY.replace("/", "|") + "2")))
    outcomes = {f"{NASTY}: stitch": {"state": "failed", "reason": NASTY}}
    shown = Page(build_page(NASTY, [point, other], outcomes, 0))
    plain = Page(build_page("plain", [compared("k=2"), other], outcomes, 0))
    outline = [(element.tag, element.attributes) for element in shown.elements if element.tag != "li"]
    assert outline == [(element.tag, element.attributes) for element in plain.elements if element.tag != "li"]
    (row, _) = shown.data["points"]
    assert (row["folder"], row["reason"], row["sweep"]) == (NASTY, NASTY, NASTY.replace("/", "|"))
    assert row["key"] == f"{row['sweep']}/{NASTY}"
    assert row["settings"]["model.name"] == NASTY
    assert shown.data["title"] == NASTY
    for tag in ("title", "h1"):
        assert shown.find_all(tag)[0].text == VISIBLE
    assert shown.find_id("failures").text == f"{VISIBLE}: failed: {VISIBLE}{VISIBLE}: stitch: failed: {VISIBLE}"
    assert row["label"].startswith(f"{row['sweep']}: ")
    assert shown.find_id("summary").text.startswith(f"One SAE: {VISIBLE.replace('/', '|')}2: ")
    assert VISIBLE in shown.find_all("li")[0].text


def test_what_no_file_can_hold_is_text():
    point = replace(compared("k=2", state=State(FAILED, "a\0b\udc80c")), name="x\udc80")
    shown = Page(build_page("t\udc80\0", [point], {}, 0))
    shown.html.encode()
    assert shown.find_id("failures").text == "x\\udc80: failed: a\\x00b\\udc80c"
    (row,) = shown.data["points"]
    assert (row["folder"], row["reason"]) == ("x\\udc80", "a\0b\\udc80c")
    blocks = Blocks()
    blocks.add("a", ["\ud83d", "\U0001f600", "<"])
    assert json.loads(gzip.decompress(base64.b64decode(blocks.encoded["a"]))) == ["\\ud83d", "\U0001f600", "<"]


def test_the_content_security_policy_comes_first_and_allows_no_network(written):
    elements = Page(written).elements
    tags = [element.tag for element in elements]
    (policy,) = [element for element in elements if element.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert elements.index(policy) < tags.index("script")
    assert elements.index(policy) < tags.index("style")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.attributes["content"].split(";"))
    scripts = [element.text for element in Page(written).find_all("script") if "type" not in element.attributes]
    styles = [element.text for element in Page(written).find_all("style")]
    assert rules == {
        "default-src": "'none'",
        "script-src": " ".join(map(digest, [*scripts, LIBRARY])),
        "style-src": " ".join(map(digest, [*styles, ""])),
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def digest(text: str) -> str:
    """The source of a content security policy that allows one script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_no_attribute_holds_a_script(written):
    for element in Page(written).elements:
        assert not [name for name in element.attributes if name.startswith("on")], element
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", remove_blocks(written)
    )


def test_the_page_refers_to_nothing_outside_itself(written):
    for element in Page(written).elements:
        for name in URL_ATTRIBUTES & element.attributes.keys():
            assert element.attributes[name].startswith("#"), (element.tag, name)
        assert element.tag not in {"link", "iframe", "object", "embed", "base", "img"}
    text = remove_blocks(written)
    assert not re.findall(r"https?:|wss?:|url\(|@import", text)
    assert not re.findall(r"\b(?:fetch|import|importScripts|XMLHttpRequest|WebSocket|EventSource|sendBeacon)\(", text)


def test_every_script_is_in_the_page_once_in_order(written):
    run = [element.text.strip() for element in Page(written).find_all("script") if "type" not in element.attributes]
    assert run == [read_asset(f"{name}.js").strip() for name in ("theme", *SCRIPTS)]
    assert (SCRIPTS[0], SCRIPTS[-1]) == ("basics", "main")
    assert {file.stem for file in ASSETS.glob("*.js")} == {"theme", *SCRIPTS}
    (style,) = Page(written).find_all("style")
    assert style.text.strip() == (read_asset("page.css") + architecture_colors()).strip()


def test_every_placeholder_is_filled(written):
    assert not re.findall(r"<!--\w+-->", written)
    assert Page(written).decode("plotly") == LIBRARY


def test_every_element_id_that_a_script_uses_exists():
    scripts = "".join(file.read_text() for file in ASSETS.glob("*.js"))
    used = set(re.findall(r'getElementById\("([^"]+)"\)', scripts))
    used |= set(re.findall(r'querySelector(?:All)?\([`"]#([\w-]+)', scripts))
    used |= set(re.findall(r'addStudySection\("([^"]+)"', scripts))
    made = set(re.findall(r'\bid: "([^"]+)"|\.id = "([^"]+)"', scripts))
    there = [
        element.attributes["id"] for element in Page(read_asset("page.html")).elements if "id" in element.attributes
    ]
    assert len(used) > 15
    assert used <= {*there, *(name for names in made for name in names)}
    assert len(there) == len(set(there))
    for reference in re.findall(r'(?:href="#|aria-labelledby=")([\w-]+)', read_asset("page.html")):
        assert reference in there


def test_the_plotting_library_is_unchanged(swept):
    from plotly.offline import get_plotlyjs

    assert Page((swept / "report.html").read_text()).decode("plotly") == get_plotlyjs()


def test_code_snapshots_of_jobs_include_the_files_of_the_page(tmp_path):
    code = copy_code(tmp_path)
    files = [file for file in ASSETS.iterdir() if file.is_file()]
    assert {file.suffix for file in files} == {".html", ".css", ".js"}
    for file in files:
        assert (code / file.relative_to(PROJECT)).read_bytes() == file.read_bytes()


def test_a_changed_file_of_the_page_gives_another_snapshot(tmp_path, monkeypatch):
    from sae_sweeps.launchers.slurm import snapshot as snapshot_module

    package = tmp_path / "project" / "sae_sweeps"
    package.mkdir(parents=True)
    monkeypatch.setattr(snapshot_module, "PROJECT", package.parent)
    folders = set()
    for name in ("page.html", "page.css", "main.js"):
        (package / name).write_text(name)
        folders.add(copy_code(tmp_path / "slurm"))
    assert len(folders) == 3


def test_the_page_names_no_folder_of_the_machine(monkeypatch):
    private = "/home/al/work"
    point = compared("k=2", state=State(FAILED, f"no such file: '{private}/models/m/x.json'"))
    point.config["model"]["name"] = f"{private}/models/m"
    point.config["dataset"] |= {"name": None, "files": [f"{private}/texts/a.txt", f"{private}/texts/b's.txt"]}
    point = replace(point, sweep=Sweep(Path(private) / "runs" / "first"))
    outcomes = {"first: stitch": {"state": "failed", "reason": f"saved={private}/saes/x: there is no such folder"}}
    text = build_page("sweep first", [point], outcomes, 0)
    assert "/home" not in remove_blocks(text)
    page = Page(text)
    assert page.data["shared"]["model.name"] == "models/m"
    assert page.data["shared"]["dataset.files"] == json.dumps(["texts/a.txt", "texts/b's.txt"])
    assert page.find_id("failures").text.endswith(
        "no such file: 'm/x.json'first: stitch: failed: saved=saes/x: there is no such folder"
    )
    assert page.data["commands"]["report"] == "python launch.py task=report name=first output_root=OUTPUT_ROOT"
    assert page.data["points"][0]["reason"] == "no such file: 'm/x.json'"
    monkeypatch.chdir("/")
    assert module._list_commands([Sweep(Path("/runs/first"))])["stitch"].endswith("name=first output_root=runs")
