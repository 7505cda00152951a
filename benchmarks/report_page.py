"""Measures the size of large reports and their response time to clicks: python -m benchmarks.report_page

The sweeps are synthetic: 200 points with curves of 2,000 lines, and an SAE of 24,576 latents with a meta-SAE. Times are
taken in the page (headless Chromium, Debian's package), from the click event until its result has been shown for one
frame; median and maximum of five repetitions. Prints two Markdown tables.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.tables import table
from tests.integration.pages import (
    CLICKS_ON_LATENTS,
    CLICKS_ON_POINTS,
    chromium,
    opened,
    time_click,
)
from tests.integration.synthetic_reports import write_report_of_latents, write_report_of_points

REPETITIONS = 5
REPORTS = (
    ("200 points", write_report_of_points, CLICKS_ON_POINTS),
    ("24,576 latents", write_report_of_latents, CLICKS_ON_LATENTS),
)


def main() -> None:
    sizes, clicks = [], []
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        for title, write_report, timed in REPORTS:
            began = time.perf_counter()
            report = write_report(Path(folder) / write_report.__name__)
            seconds = time.perf_counter() - began
            with opened(browser, report) as page:
                painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
                sizes.append([title, f"{report.stat().st_size / 1e6:.1f}", f"{seconds:.0f}", f"{painted:.0f}"])
                for click in timed:
                    times = [time_click(page, click, at) for at in range(REPETITIONS)]
                    name = click.__name__.replace("_", " ")
                    clicks.append([title, name, f"{median(times):.0f}", f"{max(times):.0f}"])
    print(table(["report", "MB", "written in, s", "first paint, ms"], sizes))
    print()
    print(table(["report", "click", "median, ms", "maximum, ms"], clicks, words=2))


if __name__ == "__main__":
    main()
