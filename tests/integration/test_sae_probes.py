"""sae-probes, in SAELens' environment, probes an SAE of ours on the same activations, and finds the same numbers."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import launch

pytestmark = pytest.mark.integration

SETS = ("41_truthqa_tf", "119_us_state_TX")
KS = (1, 4, 16)
FIND = "import importlib.util as u; print(u.find_spec('sae_probes').submodule_search_locations[0])"
PEER = Path(__file__).parent / "peers" / "with_sae_probes.py"


@pytest.fixture(scope="module")
def python_and_data() -> tuple[str, Path]:
    """Return a Python with sae-probes, and the folder of the data sets in the package."""
    python = os.environ.get("SAELENS_PYTHON")
    if not python:
        pytest.skip("SAELENS_PYTHON does not name a Python with sae-lens; `make integration` makes one")
    python = str(Path(python).absolute())
    found = subprocess.run([python, "-c", FIND], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("the Python of SAELENS_PYTHON has no sae-probes; `make environments` adds it")
    return python, Path(found.stdout.strip()) / "data" / "cleaned_data"


def test_sae_probes_finds_the_same_numbers(python_and_data, tiny, tmp_path):
    python, data = python_and_data
    given = ["name=probed", "tracking=off", "device=cpu"]
    probe = [f"probe.data={data}", f"probe.sets=[{','.join(SETS)}]", f"probe.ks=[{','.join(map(str, KS))}]"]
    done = launch(*tiny, *given, *probe, "then=[probe]", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (results,) = tmp_path.glob("outputs/probed/probe/*/results.json")
    (acts,) = tmp_path.glob("outputs/probed/probe/activations-*")
    (sae,) = tmp_path.glob("outputs/probed/*/sae")
    command = [python, str(PEER), str(acts), str(sae), ",".join(map(str, KS)), *SETS]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    theirs = json.loads(ran.stdout.splitlines()[-1])
    ours = json.loads(results.read_text())["sets"]
    assert [row["name"] for row in ours] == list(SETS)
    for row in ours:
        expected = theirs[row["name"]]
        assert len(expected) == len(KS) + 1
        for one, other in zip((*row["ks"], row["activations"]), expected, strict=True):
            assert one.get("k") == other.get("k")
            assert one["auc"] == pytest.approx(other["test_auc"], abs=1e-6)
            assert one["accuracy"] == pytest.approx(other["test_acc"], abs=1e-9)
            assert one["f1"] == pytest.approx(other["test_f1"], abs=1e-9)
            assert row["latents"][: len(other.get("indices", []))] == other.get("indices", [])
