"""What is in a page: its elements as a browser parses them, its data and blocks unpacked."""

import base64
import gzip
import json
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from typing import Any

from sae_sweeps.report.page import page
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.comparison import collect_points
from sae_sweeps.sweep.sweep_state import read_states

VOID = {"meta", "input", "br", "link", "img"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Page(HTMLParser):
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

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    def by_id(self, name: str) -> Element:
        (found,) = [element for element in self.elements if element.attributes.get("id") == name]
        return found

    @cached_property
    def data(self) -> Any:
        return json.loads(self.by_id("data").text)

    def unpacked(self, name: str) -> str:
        return gzip.decompress(base64.b64decode(self.by_id(f"block-{name}").text, validate=True)).decode()

    def block(self, name: str) -> Any:
        return json.loads(self.unpacked(name))

    def cards(self, shelf: dict[str, Any]) -> list[dict[str, Any]]:
        return [card for name in shelf["cards"] for card in self.block(name)]

    @cached_property
    def quotes(self) -> list[list[str]]:
        return [quote for name in self.data["explorer"]["quotes"] for quote in self.block(name)]


def page_of(*sweeps: Sweep, most: int = 2**20) -> Page:
    points = [point for sweep in sweeps for point in collect_points(sweep, read_states(sweep).points)]
    return Page(page("sweep", points, {}, most))
