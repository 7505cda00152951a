"""Reads a page: its elements as a browser parses them, its data and its decoded blocks."""

import base64
import gzip
import json
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from typing import Any

from sae_sweeps.report.page import build_page
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import collect_points
from sae_sweeps.sweep.sweep_state import read_states

VOID = {"meta", "input", "br", "link", "img"}


@dataclass
class Element:
    """An element of a page, with the text of everything inside."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """A parsed page. Fails if an element is not closed."""

    html: str
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []
        self.feed(self.html)
        self.close()
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def find_all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    def find_id(self, name: str) -> Element:
        (found,) = [element for element in self.elements if element.attributes.get("id") == name]
        return found

    @cached_property
    def data(self) -> Any:
        """The JSON that the scripts read when the page opens."""
        return json.loads(self.find_id("data").text)

    def decode(self, name: str) -> str:
        """Decode the text of a compressed block."""
        return gzip.decompress(base64.b64decode(self.find_id(f"block-{name}").text, validate=True)).decode()

    def block(self, name: str) -> Any:
        """Return the JSON value of a compressed block."""
        return json.loads(self.decode(name))

    def cards(self, card_set: dict[str, Any]) -> list[dict[str, Any]]:
        """Return all cards of a set."""
        return [card for name in card_set["cards"] for card in self.block(name)]

    @cached_property
    def contexts(self) -> list[list[str]]:
        """All contexts of the explorer's examples: [before, token, after]."""
        return [context for name in self.data["explorer"]["contexts"] for context in self.block(name)]


def read_page(*sweeps: Sweep, max_bytes: int = 2**20) -> Page:
    """Build and parse the page on sweeps."""
    points = [point for sweep in sweeps for point in collect_points(sweep, read_states(sweep).points)]
    return Page(build_page("sweep", points, {}, max_bytes))
