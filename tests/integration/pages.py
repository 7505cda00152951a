"""Opens reports in a browser, takes screenshots, times clicks, and builds synthetic reports of large sweeps."""

import gzip
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from embedded.train import TEXT
from sae_sweeps.config import Config
from sae_sweeps.formats import saelens
from sae_sweeps.formats.layout import SAE_FOLDER
from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.runtime.files import write_json
from sae_sweeps.runtime.provenance import provenance
from sae_sweeps.saes import TopKSAE
from sae_sweeps.studies import decomposition_tables, latent_tables
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks.report import write_page
from tests.conftest import composed

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = (400, 1000, 1600)
THEMES = ("light", "dark")
EXPLORER_MIB = 10  # as by default


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, report: Path, fragment: str = "", *, width: int = 1000, theme: str = "light", height: int = 900
) -> Iterator[Page]:
    """Open the report from disk. Fails if the page logs an error or warning, or requests anything but itself."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    page = context.new_page()
    page.set_default_timeout(10_000)
    events: list[str] = []
    page.on("console", lambda line: line.type in ("error", "warning") and events.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("request", lambda request: events.append(f"requests {request.url.partition('#')[0]}"))
    page.goto(f"{report.as_uri()}{fragment}")
    yield page
    context.close()
    assert set(events) == {f"requests {report.as_uri()}"}, events


def draw_all(page: Page) -> None:
    """Scroll to every chart, and wait until it is drawn."""
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        expect(chart.locator(".main-svg").first).to_be_visible()


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


# Synthetic reports: points and studies without training.


def write_report_of_points(folder: Path, points: int = 200, lines: int = 2000) -> Path:
    """Write the report on points of three architectures, each with a long training curve."""
    sweep = Sweep(folder)
    templates = {name: composed(f"sae={name}", "tracking=off") for name in ("batchtopk", "topk", "jumprelu")}
    every = itertools.product(templates, (1536, 3072, 6144, 12288), (8, 16, 32, 64, 96, 128), (0, 1, 2))
    configs = {
        f"{architecture}-{size}-k{k}-seed{seed}-{number:08x}": replace(
            templates[architecture], dict_size=size, k=k, seed=seed
        )
        for number, (architecture, size, k, seed) in enumerate(itertools.islice(every, points))
    }
    sweep.add(configs)
    random = np.random.default_rng(0)
    for name, config in configs.items():
        error = 0.4 / config.k**0.5 * (3072 / config.dict_size) ** 0.3 * random.uniform(0.98, 1.02)
        _write_point(folder / name, config, error)
        _write_curve(folder / name / "metrics.jsonl", config, error, lines, random)
    return write_page([load_sweep(sweep)], EXPLORER_MIB)


def write_report_of_latents(folder: Path, latents: int = 24576, d_in: int = 64) -> Path:
    """Write the report on one large SAE with examples of all latents, and a meta-SAE with a quarter as many."""
    sweep = Sweep(folder)
    config = composed("sae=topk", f"dict_size={latents}", "tracking=off")
    name = f"topk-{latents}-k32-seed0-00000000"
    sweep.add({name: config})
    _write_point(folder / name, config, 0.05)
    sae = TopKSAE(d_in=d_in, dict_size=latents, normalize_input=True, k=config.k)
    torch.nn.init.normal_(sae.W_dec, std=d_in**-0.5)
    saelens.write(folder / name / SAE_FOLDER, sae.for_inference(), {})

    words, random = _Words(), np.random.default_rng(0)
    columns = words.table(latents, random)
    sae_entry = {"sae": {"point": name}}
    latents_study = {**sae_entry, "settings": asdict(config.latents)}
    _write_study(folder / "latents" / name, latents_study, config, {"latents": latents})
    pq.write_table(pa.table(columns, schema=latent_tables.SCHEMA), folder / "latents" / name / "latents.parquet")

    meta, users = latents // 4, [[] for _ in range(latents // 4)]
    parts = [
        [{"meta_latent": int(at), "weight": float(weight)} for at, weight in zip(row, weights, strict=True)]
        for row, weights in zip(random.integers(meta, size=(latents, 4)), random.random((latents, 4)), strict=True)
    ]
    for latent, row in enumerate(parts):
        for part in row:
            users[part["meta_latent"]].append({"latent": latent, "weight": part["weight"]})
    place = folder / "meta_sae" / f"topk-{latents}-meta-k4-00000000"
    numbers = {
        "latents": latents,
        "meta_latents": meta,
        "l0": 4.0,
        "explained_variance": 0.55,
        "explained_variance_shuffled": 0.5,
    }
    study = {**sae_entry, "settings": asdict(config.meta)}
    _write_study(place, study, config, numbers, smaller={}, meta_latents_per_latent=[0, 0, 0, 0, latents])
    decomposed = {**columns, "explained": random.random(latents), "meta_latents": parts}
    pq.write_table(pa.table(decomposed, schema=decomposition_tables.LATENTS), place / "latents.parquet")
    used = {"used_by": [len(row) for row in users], "latents": [row[:10] for row in users], "matches": [[]] * meta}
    metas = pa.table({**words.table(meta, random), **used}, schema=decomposition_tables.META_LATENTS)
    pq.write_table(metas, place / "meta_latents.parquet")
    return write_page([load_sweep(sweep)], EXPLORER_MIB)


class _Words:
    """Writes latents tables with examples from the embedded text: each latent is active on one of its words."""

    def __init__(self) -> None:
        with gzip.open(TEXT, "rt") as lines:
            self.text = [f" {word}" for line in lines for word in json.loads(line)["text"].split()]
        self.places: dict[str, list[int]] = {}
        for place, word in enumerate(self.text):
            self.places.setdefault(word, []).append(place)

    def table(self, latents: int, random: np.random.Generator) -> dict[str, Any]:
        """Return the columns of latent_tables.SCHEMA."""
        active = np.sort(random.random((latents, 10)))[:, ::-1]
        logits = np.sort(random.random((latents, 10)))[:, ::-1]
        chosen = random.integers(len(self.text), size=latents)
        raised = random.integers(len(self.text), size=(latents, 10))
        examples, promoted = [], []
        for latent in range(latents):
            there = self.places[self.text[chosen[latent]]]
            some = sorted({there[at] for at in random.integers(len(there), size=10)})
            values = zip(some, active[latent, : len(some)], strict=True)
            examples.append([self._example(place, float(value)) for place, value in values])
            tokens = zip(raised[latent], logits[latent], strict=True)
            promoted.append([{"token": self.text[at], "logit": float(value)} for at, value in tokens])
        return {
            "latent": range(latents),
            "frequency": random.random(latents) / 100,
            "mean_activation": active.mean(1),
            "max_activation": active[:, 0],
            "examples": examples,
            "promoted": promoted,
        }

    def _example(self, place: int, activation: float) -> dict[str, Any]:
        before, after = self.text[max(0, place - 10) : place], self.text[place + 1 : place + 6]
        return {
            "activation": activation,
            "before": "".join(before),
            "token": self.text[place],
            "after": "".join(after),
            "place": place,
        }


def _write_point(folder: Path, config: Config, error: float) -> None:
    point = {"architecture": config.sae.architecture, "dict_size": config.dict_size, "k": config.k, "seed": config.seed}
    metrics = {
        "nmse": error,
        "fvu": 2.1 * error,
        "l0": config.k * (1 + error / 10),
        "dead_fraction": error / 3,
        "ce_degradation": 2.3 * error,
        "ce_recovered_zero": 1 - error / 2,
        "ce_recovered_mean": 1 - error,
    }
    training = {"tokens": 2_048_000, "steps": 2000, "seconds": 60 + 1e3 * error, "tokens_per_second": 3e4 - 1e4 * error}
    results = {
        "point": point,
        "metrics": metrics,
        "training": training,
        "config": asdict(config),
        "provenance": provenance(),
    }
    write_json(folder / "results.json", results)


def _write_curve(file: Path, config: Config, error: float, lines: int, random: np.random.Generator) -> None:
    steps = np.arange(1, lines + 1)
    mse = error * (1 + 3 / np.sqrt(steps)) * random.normal(1, 0.02, lines)
    more = np.stack([mse / 40, config.k * random.normal(1, 0.01, lines), random.random(lines)]).T.tolist()
    file.write_text(
        "".join(
            f'{{"step": {step}, "tokens": {1024 * step}, "loss": {value}, "mse": {value}, "aux_loss": {aux},'
            f' "l0": {l0}, "dead_fraction": {dead}, "lr": 0.004, "threshold_mean": {dead}, "seconds": 0.03}}\n'
            for step, value, (aux, l0, dead) in zip(steps.tolist(), mse.tolist(), more, strict=True)
        )
    )


def _write_study(folder: Path, study: dict[str, Any], config: Config, metrics: dict[str, float], **more: Any) -> None:
    content = {"study": study, "metrics": metrics, "seconds": 1.0, **more, "config": asdict(config)}
    write_json(folder / "results.json", content)
