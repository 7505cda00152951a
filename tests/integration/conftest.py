"""Which slow tests share a worker: those of a file, and all of report_page/, whose fixtures take a minute."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each test into a group for `--dist loadgroup`."""
    for item in items:
        is_report = "report_page" in item.path.parts
        item.add_marker(pytest.mark.xdist_group(str(Path(*item.path.parts[:-1]) if is_report else item.path)))
