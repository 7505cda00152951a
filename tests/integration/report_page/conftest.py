"""A tiny sweep with all its studies, and its report in a browser."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point, Sweep
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.sweep.point_state import FAILED, write_state
from sae_sweeps.tasks import train
from sae_sweeps.tasks.report import write_page
from tests.conftest import GIVEN, composed, launch
from tests.integration.synthetic_reports import EXPLORER_MIB

if TYPE_CHECKING:  # the tests are skipped if playwright is not installed
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    from tests.integration.pages import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def sweep(tmp_path_factory, tiny) -> Path:
    """The folder of a sweep with two seeds, all studies, a failed point, and its report."""
    root = tmp_path_factory.mktemp("report")
    words = ["sae=batchtopk,topk", "dict_size=32,48", "seed=0,1", "then=[stitch,meta_sae,meta_sizes,latents]"]
    done = launch("-m", *tiny, *words, *GIVEN, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = root / "outputs" / "first"
    failing = composed(*tiny, *GIVEN, "sae=jumprelu", "sae.sparsity_coefficient=0.01", "training.lr=1e38")
    Sweep(folder).add({"jumprelu-48-failing": failing})
    train.run([Point(failing, folder / "jumprelu-48-failing")], Limits(), SweepProgress(1), note_failure)
    write_page([load_sweep(Sweep(folder))], EXPLORER_MIB)
    return folder


def note_failure(point: Point, error: Exception | None) -> None:
    write_state(point.folder, FAILED, str(error))


@pytest.fixture
def open_report(browser, sweep) -> Iterator[Callable[..., "Page"]]:
    """Open the sweep's report; at the end of the test it must have had no requests, errors or warnings."""
    from tests.integration.pages import opened

    with ExitStack() as stack:
        yield lambda *fragment, **view: stack.enter_context(opened(browser, sweep / "report.html", *fragment, **view))
