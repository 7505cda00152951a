"""SAELens, in its own environment, loads the SAEs we save and reconstructs the same activations."""

import json
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
import json, sys
from safetensors.torch import load_file, save_file
from sae_lens import SAE
x, found = load_file("x.safetensors")["x"], {}
for folder in sys.argv[1:]:
    sae = SAE.load_from_disk(folder)
    name = folder.split("/")[-2]
    save_file({"recon": sae(x).detach().contiguous(), "acts": sae.encode(x).detach().contiguous()}, name)
    found[name] = [type(sae).__name__, sae.cfg.metadata.hook_name]
print(json.dumps(found))
"""
CLASSES = {
    "batchtopk": "JumpReLUSAE",
    "topk": "TopKSAE",
    "jumprelu": "JumpReLUSAE",
    "matryoshka": "JumpReLUSAE",
    "relu": "StandardSAE",
    "gated": "GatedSAE",
}


@pytest.fixture(scope="module")
def saelens_python() -> str:
    python = os.environ.get("SAELENS_PYTHON")
    if not python:
        pytest.skip("SAELENS_PYTHON does not name a Python with sae-lens; `make integration` makes one")
    return str(Path(python).absolute())


@pytest.fixture(scope="module")
def loaded(saelens_python, tmp_path_factory, tiny) -> tuple[Path, dict[str, list[str]]]:
    """Train an SAE of each architecture, load all in SAELens. Returns the folder, and class and hook by point."""
    folder = tmp_path_factory.mktemp("saelens")
    done = launch("-m", *tiny, f"sae={','.join(CLASSES)}", cwd=folder)
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    save_file({"x": 3 * torch.randn(200, 16) + torch.randn(16)}, folder / "x.safetensors")
    saes = sorted(map(str, folder.glob("outputs/*/*/sae")))
    command = [saelens_python, "-c", LOADS, *saes]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return folder, json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("architecture", CLASSES)
def test_saelens_reconstructs_the_same(loaded, architecture):
    folder, found = loaded
    (name,) = (name for name in found if name.startswith(f"{architecture}-"))
    assert found[name] == [CLASSES[architecture], "blocks.1.hook_resid_pre"]
    theirs, x_BD = load_file(folder / name), load_file(folder / "x.safetensors")["x"]
    (saved,) = folder.glob(f"outputs/*/{name}/sae")
    sae = saelens.read(saved)
    torch.testing.assert_close(theirs["recon"], sae(x_BD), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs["acts"], sae.encode(x_BD), rtol=1e-5, atol=1e-5)


def test_activations_are_the_same_with_transformer_lens_3(saelens_python):
    """SAELens installs TransformerLens 3; our own environment has 4. Both must give the same activations."""
    version = "import transformer_lens, importlib.metadata as m; print(m.version('transformer_lens'))"
    found = subprocess.run([saelens_python, "-c", version], capture_output=True, text=True)
    assert found.stdout.startswith("3."), found
    tests = Path(__file__).parent.parent / "activations" / "test_language_model.py"
    command = [saelens_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, cwd=tests.parent.parent.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
