"""SAELens, in its own environment, loads the SAEs we save and reconstructs the same activations."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_sweeps.formats import saelens
from tests.conftest import launch

pytestmark = pytest.mark.integration

LOADS = """
import sys
from safetensors.torch import load_file, save_file
from sae_lens import SAE
sae = SAE.load_from_disk(sys.argv[1])
x = load_file(sys.argv[2])["x"]
save_file({"recon": sae(x).detach().contiguous(), "acts": sae.encode(x).detach().contiguous()}, sys.argv[3])
print(type(sae).__name__, sae.cfg.metadata.hook_name)
"""


@pytest.fixture(scope="module")
def saelens_python() -> str:
    python = os.environ.get("SAELENS_PYTHON")
    if not python:
        pytest.skip("SAELENS_PYTHON does not name a Python with sae-lens; `make integration` makes one")
    return str(Path(python).absolute())


@pytest.mark.parametrize(
    ("architecture", "theirs"),
    [
        ("batchtopk", "JumpReLUSAE"),
        ("topk", "TopKSAE"),
        ("jumprelu", "JumpReLUSAE"),
        ("matryoshka", "JumpReLUSAE"),
        ("relu", "StandardSAE"),
        ("gated", "GatedSAE"),
    ],
)
def test_saelens_reconstructs_the_same(saelens_python, tmp_path, tiny, architecture, theirs):
    words = [*tiny, f"sae={architecture}"]
    if architecture == "jumprelu":
        words.append("sae.sparsity_coefficient=0.01")
    done = launch(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs").glob("*/*/sae")
    x_BD = 3 * torch.randn(200, 16) + torch.randn(16)
    inputs, outputs = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    save_file({"x": x_BD}, inputs)
    command = [saelens_python, "-c", LOADS, str(folder), str(inputs), str(outputs)]
    loaded = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == [theirs, "blocks.1.hook_resid_pre"]
    found, sae = load_file(outputs), saelens.read(folder)
    torch.testing.assert_close(found["recon"], sae(x_BD), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["acts"], sae.encode(x_BD), rtol=1e-5, atol=1e-5)


def test_activations_are_the_same_with_transformer_lens_3(saelens_python):
    """SAELens installs TransformerLens 3; our own environment has 4. Both must give the same activations."""
    version = "import transformer_lens, importlib.metadata as m; print(m.version('transformer_lens'))"
    found = subprocess.run([saelens_python, "-c", version], capture_output=True, text=True)
    assert found.stdout.startswith("3."), found
    tests = Path(__file__).parent.parent / "activations" / "test_language_model.py"
    command = [saelens_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, cwd=tests.parent.parent.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
