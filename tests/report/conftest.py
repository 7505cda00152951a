"""Pages are built without the plotting library, which takes a second to compress."""

import pytest

from sae_sweeps.report import page as module

LIBRARY = 'const plotted = "</script>";'


@pytest.fixture(autouse=True)
def library(monkeypatch) -> str:
    """A script that stands for the plotting library."""
    monkeypatch.setattr(module, "read_plotly", lambda: LIBRARY)
    return LIBRARY
