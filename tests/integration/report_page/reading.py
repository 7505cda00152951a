"""What a report shows in the browser, and what the sweep's files contain."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.integration.pages import CHROMIUM, filters

IN_CHROMIUM = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed, and CHROMIUM is not set"),
]


def values(page: Page, name: str) -> list[float | None]:
    """Return a column of the table in its current order."""
    found = page.locator(f"#points-table td[data-name={name}]").evaluate_all(
        "all => all.map((one) => one.dataset.value)"
    )
    return [None if value is None else float(value) for value in found]


def rows(page: Page) -> Locator:
    return page.locator("#points-table tbody tr")


def chart(page: Page, title: str) -> Locator:
    """Scroll to a chart and wait until it is drawn."""
    figure = page.locator("figure", has=page.get_by_role("heading", name=title, exact=True))
    figure.scroll_into_view_if_needed()
    expect(figure.locator(".main-svg").first).to_be_visible()
    return figure


def traces(page: Page, title: str) -> list[dict[str, Any]]:
    """Return name and coordinates of each plotted series."""
    plotted = "area => area.data.map(({ name, x, y }) => ({ name, x: [...x], y: [...y] }))"
    return chart(page, title).locator(".chart").evaluate(plotted)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def ungroup_seeds(page: Page) -> None:
    filters(page, "seeds").select_option("")
    expect(rows(page)).to_have_count(9)


def set_view(page: Page, width: int, theme: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    expect(page.locator("html")).to_have_attribute("data-theme", theme)
    page.wait_for_timeout(300)  # charts are redrawn


def table(one: Locator) -> list[list[str]]:
    """Return the body of a table as text."""
    return one.locator("tbody tr").evaluate_all(
        "all => all.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
