"""Adapts the documents to the site: they are also read in a checkout, where links lead to files beside docs/."""

import re

LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<path>(?:\.\./)+[^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return a page in which a link to a file outside docs/ is the file's name in the repository."""
    return LINK.sub(_name_file, markdown)


def _name_file(link: re.Match[str]) -> str:
    path = re.sub(r"^(\.\./)+", "", link["path"])
    return link["text"] if path in link["text"] else f"{link['text']} (`{path}` in the repository)"
