"""Model cards of strangers' SAEs: what a Markdown renderer, YAML and Python make of hostile names."""

import ast
import json

import pytest
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from sae_sweeps.config.tasks import EXPORTS
from sae_sweeps.formats.description import Description
from sae_sweeps.report.markdown import escape_markdown, format_code, format_markdown_row, format_markdown_table
from sae_sweeps.sweep.comparison import Group
from sae_sweeps.tasks.model_card import build_card, build_overview
from tests.report.made import PROVENANCE
from tests.tasks.exported import front_matter
from tests.tasks.foreign import foreign, saved

HOSTILE = [
    "`\n\n# INJECTED\n\n<script>alert(1)</script>\n\n`",
    "<img src=x onerror=alert(1)>",
    "![a](https://e.org/a.png) [b](javascript:alert(1)) <https://e.org> https://e.org www.e.org a@e.org [c]: d",
    "a | b \\| c || `d | e` \\` \\",
    "--- \n***\n| - |\n* x\n1. y\n> z\n~~~\n```\nimport os\n```",
    'x" )\n# y")\nimport os; os.system("id")#',
    "x') # \\'); import os",
    "**a** __b__ _c_ ~~d~~ &lt; &#60; $e$ # ##",
    "\u202egnp.exe \x00 \x1b[2J \u2028 \udc80 \ufeff",
]


def rendered(text: str) -> SyntaxTreeNode:
    """The tree of a card without its YAML header, by CommonMark and the hub's tables and ~~deletions~~."""
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return SyntaxTreeNode(markdown.parse(text.split("\n---\n", 1)[-1]))


def shown(node: SyntaxTreeNode) -> str:
    """The text of a node as a reader sees it."""
    parts = [one.content for one in node.walk() if one.type in ("text", "text_special", "code_inline")]
    return "".join(parts)


def visible(text: str) -> str:
    """The text with escapes in place of what cannot be seen."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("show", [escape_markdown, format_code])
def test_text_in_markdown_is_shown_as_it_is(show, text):
    (paragraph,) = rendered(f"a {show(text)} b").children
    assert {one.type for one in paragraph.walk()} <= {"paragraph", "inline", "text", "text_special", "code_inline"}
    assert shown(paragraph) == f"a {visible(text)} b"
    (heading,) = rendered(f"# {show(text)}").children
    assert (heading.type, shown(heading)) == ("heading", visible(text))
    (table,) = rendered("\n".join(map(format_markdown_row, (["a", "b"], ["---"] * 2, [show(text), "c"])))).children
    cells = [one for one in table.walk() if one.type in ("td", "th")]
    assert [shown(cell) for cell in cells] == ["a", "b", visible(text).strip(), "c"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("format", EXPORTS)
def test_no_name_adds_anything_to_a_card(format, text):
    def card(name: str) -> str:
        description = Description(name, 16, 32, 4, name, name, directions_of=None)
        config = {"sae": {"architecture": name, name: name}, "dataset": {"files": [name, name]}}
        provenance = {**PROVENANCE, "commit": name, "packages": {name: name}, "uncommitted_changes": True}
        return build_card(name, format, description, {"nmse": 0.5, "held_out_tokens": 9}, config, provenance, name)

    def overview(name: str) -> str:
        return build_overview(name, format, name, {name: {"nmse": 0.5}, "other": {}})

    for build in (card, overview):
        assert build(text).isprintable() or set(build(text)) - set(filter(str.isprintable, build(text))) == {"\n"}
        tree, plain = rendered(build(text)), rendered(build("plain"))
        inline = ("text", "text_special", "code_inline")
        kinds, usual = ([one.type for one in found.walk() if one.type not in inline] for found in (tree, plain))
        assert kinds == usual
        assert not {"html_block", "html_inline", "link", "image"} & set(kinds)
    (fence,) = (one for one in rendered(card(text)).walk() if one.type == "fence")
    (usual_fence,) = (one for one in rendered(card("plain")).walk() if one.type == "fence")
    expected = ast.dump(ast.parse(usual_fence.content)).replace(repr("plain"), repr(text))
    assert ast.dump(ast.parse(fence.content)) == expected


def test_the_yaml_of_a_card_names_only_models_of_the_hub(tmp_path):
    for model in ("evil/model\ntags: [x]\n", "a/b\n", "a/b #c", "ä/b", "a/b: c"):
        (tmp_path / "README.md").write_text(build_overview("t", "sae_lens", model, {}))
        assert front_matter(tmp_path / "README.md").keys() == {"library_name", "tags"}


def test_a_strangers_sae_is_exported_with_a_harmless_card(tmp_path, command):
    hostile = """a'"`)<img src=x onerror=alert(1)>[x](y) # b"""
    sae = saved("sae_lens", tmp_path / hostile, foreign("topk"), "gpt2")
    assert command("task=export", f"sae={json.dumps(str(sae))}", "export.folder=out").code == 0
    (card,) = (tmp_path / "out").rglob("README.md")
    tree = rendered(card.read_text())
    assert not {"html_block", "html_inline", "link", "image"} & {one.type for one in tree.walk()}
    assert [shown(one) for one in tree.walk() if one.type == "heading"] == [card.parent.name]
    (fence,) = (one for one in tree.walk() if one.type == "fence")
    (loaded,) = (one.value.args[0].value for one in ast.parse(fence.content).body if isinstance(one, ast.Assign))
    assert loaded == card.parent.name
    assert hostile in loaded


def test_addresses_are_no_links_on_the_hub_either():
    assert escape_markdown("https://e.org www.e.org WWW.e.org a@e.org") == (
        "https\\://e.org www\\.e.org WWW\\.e.org a\\@e.org"
    )


def test_names_that_do_no_harm_are_written_as_they_are():
    for name in ("topk-32-k4-seed0", "blocks.3.hook_resid_pre", "google/gemma-2-2b", "trainer_0 (k = 4): a, b!"):
        assert escape_markdown(name) == name


def test_a_table_for_a_paper_shows_labels_as_they_are():
    (table,) = rendered(format_markdown_table([Group(text, [], {}, {}) for text in HOSTILE])).children
    rows = [one for one in table.walk() if one.type == "tr"]
    assert [shown(row.children[0]) for row in rows[1:]] == [visible(text).strip() for text in HOSTILE]
