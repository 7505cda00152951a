"""How large the reports of large sweeps are, and how soon they answer a click: python -m benchmarks.report_page

The sweeps are made up: 200 points with curves of 2,000 lines, and an SAE of 24,576 latents with a meta-SAE. The time is
taken in the page (headless Chromium, Debian's package), from the event of the click until what it is for has been there
for a frame; the median of some repetitions. Results are printed.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.tables import table
from tests.integration.pages import (
    CLICKS_ON_LATENTS,
    CLICKS_ON_POINTS,
    answered,
    chromium,
    many_latents,
    many_points,
    opened,
)

REPETITIONS = 5
REPORTS = (
    ("200 points", many_points, CLICKS_ON_POINTS),
    ("24,576 latents", many_latents, CLICKS_ON_LATENTS),
)


def main() -> None:
    sizes, clicks = [], []
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        for title, make, some in REPORTS:
            began = time.perf_counter()
            report = make(Path(folder) / make.__name__)
            made = time.perf_counter() - began
            with opened(browser, report) as page:
                painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
                sizes.append([title, f"{report.stat().st_size / 1e6:.1f}", f"{made:.0f}", f"{painted:.0f}"])
                for click in some:
                    times = [answered(page, click, at) for at in range(REPETITIONS)]
                    name = click.__name__.replace("_", " ")
                    clicks.append([title, name, f"{median(times):.0f}", f"{max(times):.0f}"])
    print(table(["report", "MB", "made in, s", "first paint, ms"], sizes))
    print()
    print(table(["report", "click", "median, ms", "longest, ms"], clicks, words=2))


if __name__ == "__main__":
    main()
