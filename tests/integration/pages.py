"""Opens reports in a browser, takes screenshots and times clicks."""

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = (400, 1000, 1600)
THEMES = ("light", "dark")
PATIENCE = 30_000  # milliseconds for what takes a tenth of a second on an idle machine
expect.set_options(timeout=PATIENCE)


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, report: Path, fragment: str = "", *, width: int = 1000, theme: str = "light", height: int = 900
) -> Iterator[Page]:
    """Open the report from disk. Fails if the page logs anything, opens a dialog or requests anything but itself."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    events: list[str] = []
    page.on("console", lambda line: events.append(f"{line.type}: {line.text}"))
    page.on("dialog", lambda dialog: (events.append(f"{dialog.type}: {dialog.message}"), dialog.dismiss()))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("request", lambda request: events.append(f"requests {re.split('#|(?<=blob:)', request.url)[0]}"))
    page.goto(f"{report.as_uri()}{fragment}")
    yield page
    context.close()
    # a blob is the page's own memory: a picture of a chart that is saved
    assert set(events) - {"requests blob:"} == {f"requests {report.as_uri()}"}, events


def draw_all(page: Page) -> None:
    """Scroll to every chart, and wait until it is drawn: also to those of cards, which appear on the way."""
    undrawn = page.locator(".chart:not(:has(.main-svg))")
    while undrawn.count():
        chart = undrawn.first.element_handle()
        chart.scroll_into_view_if_needed()
        chart.wait_for_selector(".main-svg")


def picture(
    browser: Browser, report: Path, file: Path, fragment: str = "", *, whole: bool = False, **view: Any
) -> None:
    """Take a screenshot of the first screen, or of the whole report with all charts drawn."""
    with opened(browser, report, fragment, **view) as page:
        page.emulate_media(reduced_motion="reduce")
        if whole:
            draw_all(page)
            page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(500)
        page.screenshot(path=file, full_page=whole)


def pictures(report: Path, folder: Path) -> None:
    """Take screenshots of the whole report at all widths, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for width, theme in itertools.product(WIDTHS, THEMES):
            picture(browser, report, folder / f"{width}-{theme}.png", width=width, theme=theme, whole=True)


# Clicks. Each function prepares the page for its n-th click, and returns the action and a JavaScript condition that
# holds once the page shows the result.

Clicked = tuple[Callable[[], None], str]
Click = Callable[[Page, int], Clicked]

WATCH_SCRIPT = """
window.response = new Promise((resolve) => {
  let began = null;
  setTimeout(resolve, 10000, null);
  for (const kind of ["click", "input", "change"]) {
    addEventListener(kind, (event) => { began ??= event.timeStamp; }, { capture: true, once: true });
  }
  const check = () => {
    if (began !== null && (CONDITION)) requestAnimationFrame(() => resolve(performance.now() - began));
    else requestAnimationFrame(check);
  };
  requestAnimationFrame(check);
}); null
"""


def time_click(page: Page, click: Click, number: int = 0) -> float:
    """Return the milliseconds from the click until its result has been shown for one frame."""
    act, condition = click(page, number)
    page.evaluate(WATCH_SCRIPT.replace("CONDITION", condition))
    act()
    milliseconds = page.evaluate("window.response")
    assert milliseconds is not None, f"{click.__name__} had no effect: {condition}"
    return milliseconds


def contains(element: str, text: str) -> str:
    return f"document.querySelector({json.dumps(element)})?.textContent.includes({json.dumps(text)})"


def column(page: Page, name: str) -> Locator:
    return page.locator(f"#points-table th[data-name={name}] button")


def filters(page: Page, label: str) -> Locator:
    return page.locator("#filters").get_by_label(label)


def show_all_points(page: Page) -> None:
    filters(page, "search").fill("")
    filters(page, "architecture").select_option("")
    filters(page, "seeds").select_option("yes")


def sort(page: Page, number: int) -> Clicked:
    column(page, "fvu").click()
    values = "[...document.querySelectorAll('td[data-name=l0]')].map((cell) => Number(cell.dataset.value))"
    return column(page, "l0").click, f"{values}.every((value, at, all) => at === 0 || all[at - 1] <= value)"


def find_points(page: Page, number: int) -> Clicked:
    show_all_points(page)
    found = "document.querySelectorAll('#points-table tbody tr').length === 6"
    return lambda: filters(page, "search").fill("batchtopk 6144"), found


def choose_architecture(page: Page, number: int) -> Clicked:
    show_all_points(page)
    found = "document.querySelectorAll('#points-table tbody tr').length === 24"
    return lambda: filters(page, "architecture").select_option("topk"), found


def ungroup_seeds(page: Page, number: int) -> Clicked:
    show_all_points(page)
    return lambda: filters(page, "seeds").select_option(""), contains("#points-table tbody", "seed 1")


def select_point(page: Page, number: int) -> Clicked:
    show_all_points(page)
    page.locator("#points-table tbody input:checked").evaluate_all("boxes => boxes.forEach((box) => box.click())")
    return page.locator("#points-table tbody input").nth(number).check, contains("#settings-status", "selected")


def search(page: Page, number: int) -> Clicked:
    box = page.locator("#search")
    box.fill("")
    expect(page.locator("#results-status")).not_to_contain_text("best of")
    return lambda: box.fill("war"), contains("#results-status", "best of") + " && " + contains(
        "#results a small", "war"
    )


def find_link(page: Page, number: int) -> Locator:
    """Find the link to a latent whose block of cards is not decoded yet."""
    page.locator("#card-set").select_option("0")
    page.locator("#search").fill("war")
    expect(page.locator("#results-status")).to_contain_text("best of")
    return page.locator("#results a").nth(3 * number)


def open_card(page: Page, number: int) -> Clicked:
    link = find_link(page, number)
    return link.click, contains("#card-title", f"latent {link.get_attribute('data-latent')} ")


def follow_link(page: Page, number: int) -> Clicked:
    """Follow the link from a latent's card to one of its meta-latents."""
    link = find_link(page, number)
    link.click()
    expect(page.locator("#card-title")).to_have_text(f"latent {link.get_attribute('data-latent')} #")
    meta = page.locator("#card .weights a", has_text="meta-latent").first
    return meta.click, contains("#card-title", f"{meta.inner_text()} ")


CLICKS_ON_POINTS: tuple[Click, ...] = (sort, find_points, choose_architecture, ungroup_seeds, select_point)
CLICKS_ON_LATENTS: tuple[Click, ...] = (search, open_card, follow_link)
