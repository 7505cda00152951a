"""Which slow tests share a worker: those of a file, and all of report_page/, whose fixtures take a minute.

Tests with a Slurm cluster mostly wait, so each may have a worker, and a cluster, of its own.
"""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each test into a group for `--dist loadgroup`."""
    for item in items:
        if "report_page" in item.path.parts:
            group = str(Path(*item.path.parts[:-1]))
        else:
            group = item.nodeid if "cluster" in getattr(item, "fixturenames", ()) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
