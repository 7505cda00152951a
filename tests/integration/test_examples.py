"""The notebooks in examples/ run from top to bottom, outside the checkout, and find what their text says."""

import functools
import json

import matplotlib.pyplot as plt
import pytest

from sae_sweeps import ActivationStream
from sae_sweeps.runtime.places import PROJECT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def make_stream():
    """Return `ActivationStream.from_model`, which makes the stream of the notebooks once: all three take the same."""
    return functools.cache(ActivationStream.from_model)


@pytest.fixture
def run(make_stream, tmp_path, monkeypatch):
    """Return a function that executes the code of a notebook as its cells, and returns the names that it defines."""
    monkeypatch.setattr(ActivationStream, "from_model", make_stream)
    monkeypatch.chdir(tmp_path)
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()) or plt.close("all"))

    def execute(name: str) -> dict:
        namespace: dict = {}
        for cell in json.loads((PROJECT / "examples" / f"{name}.ipynb").read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), namespace)
        assert all(axes.has_data() for figure in shown for axes in figure.axes)
        return {**namespace, "figures": shown}

    return execute


def test_train_and_compare(run, tmp_path):
    found = run("train_and_compare")
    metrics = found["metrics"]
    assert list(metrics["k"]) == [8, 16, 32] * 2
    assert list(metrics["l0"]) == pytest.approx(list(metrics["k"]), rel=0.1)
    for _, points in metrics.groupby("SAE"):
        assert list(points["nmse"]) == sorted(points["nmse"], reverse=True)  # less error with more latents
    assert all(curve[-1]["mse"] < 0.7 * curve[0]["mse"] for curve in found["curves"])
    assert (tmp_path / "my" / "best" / "sae_weights.safetensors").is_file()
    assert len(found["figures"]) == 2


def test_papers_studies(run):
    found = run("papers_studies")
    assert found["pair"].prediction.auroc > 0.8
    lowers = (found["change"] < 0) & found["active"]
    assert lowers.sum() > found["active"].sum() / 2
    assert found["meta"].explained_variance > found["control"].explained_variance + 0.03
    assert found["data"].tokens_A[found["latents"][:, found["latent"]].argmax()] == found["there"]
    assert len(found["figures"]) == 2


def test_other_libraries(run):
    found = run("other_libraries")
    rows = found["rows"]
    assert list(rows) == ["gemma_scope", "sae_lens", "sparsify"]
    assert rows["gemma_scope"] == pytest.approx(rows["sae_lens"], rel=1e-5)
    assert all(row["nmse"] < 0.3 for row in rows.values())
    assert rows["sparsify"]["l0"] == 16
    assert found["moved"].max() > 0
