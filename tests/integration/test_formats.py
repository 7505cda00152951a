"""Exchange of SAEs with other libraries, each in its own environment: they reconstruct the same with the SAEs we write,
and we with the SAEs they save."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from sae_sweeps.formats.description import Description
from sae_sweeps.formats.reading import locate
from sae_sweeps.formats.registry import WRITERS
from sae_sweeps.saes import BatchTopKSAE, InferenceSAE, JumpReLUSAE, TopKSAE
from tests.tasks.foreign import HOOK, D, foreign

pytestmark = pytest.mark.integration

PYTHONS = {
    "sae_lens": "SAELENS_PYTHON",
    "dictionary_learning": "DICTIONARY_LEARNING_PYTHON",
    "sparsify": "SPARSIFY_PYTHON",
}


def trained(kind: type) -> InferenceSAE:
    """Return an SAE of ours, which normalises activations."""
    sae = kind(D, 40, sparsity_coefficient=0.1) if kind is JumpReLUSAE else kind(D, 40, 5)
    with torch.no_grad():
        sae.b_dec += 0.1 * torch.randn(D)
        if kind is BatchTopKSAE:
            sae.threshold.fill_(0.5)
    return sae.for_inference()


def without_centering(sae: InferenceSAE) -> InferenceSAE:
    """Return the SAE, with b_dec no longer subtracted from the encoder's input."""
    sae.centers_input = False
    return sae


OURS = {
    "sae_lens": {architecture: foreign(architecture) for architecture in ("relu", "topk", "jumprelu", "gated")}
    | {kind.__name__: trained(kind) for kind in (TopKSAE, BatchTopKSAE, JumpReLUSAE)}
    | {f"{name}-raw": without_centering(foreign(name)) for name in ("relu", "topk", "jumprelu", "gated")},
    "dictionary_learning": {name: foreign(name) for name in ("relu", "topk", "batchtopk", "jumprelu", "gated")}
    | {f"{name}-raw": without_centering(foreign(name)) for name in ("relu", "topk", "batchtopk", "jumprelu", "gated")},
    "sparsify": {"topk": foreign("topk"), "topk-raw": without_centering(foreign("topk"))},
}
THEIRS = {
    "sae_lens": {
        "Standard": "relu",
        "Standard-layer_norm": "relu",
        "Standard-constant_norm_rescale-False": "relu",
        "TopK-5": "topk",
        "TopK-5-True": "topk",
        "JumpReLU": "jumprelu",
        "JumpReLU-False": "jumprelu",
        "Gated": "gated",
        "TopK-trained": "topk",
        "BatchTopK-trained": "jumprelu",
        "MatryoshkaBatchTopK-trained": "jumprelu",
        "TopK-resumable": "topk",
        "BatchTopK-resumable": "batchtopk",
        "MatryoshkaBatchTopK-resumable": "matryoshka",
    },
    "dictionary_learning": {
        "AutoEncoder": "relu",
        "AutoEncoderNew": "relu",
        "GatedAutoEncoder": "gated",
        "AutoEncoderTopK": "topk",
        "BatchTopKSAE": "batchtopk",
        "MatryoshkaBatchTopKSAE": "matryoshka",
        "JumpReluAutoEncoder": "jumprelu",
    },
    "sparsify": {"by-factor": "topk", "by-latents": "topk"},
}


def require_same(name: str, found: dict[str, torch.Tensor], recon_BD: torch.Tensor, acts_BF: torch.Tensor) -> None:
    for part, expected in (("recon", recon_BD), ("acts", acts_BF)):
        assert_close(found[part], expected, rtol=1e-5, atol=1e-5, msg=f"{name}: {part}\n{{}}".format)
    assert (acts_BF > 0).any(), name
    assert (acts_BF == 0).any(), name


@pytest.fixture(scope="module", params=PYTHONS)
def exchanged(request, tmp_path_factory) -> tuple[str, Path]:
    """Have a library read our SAEs and save its own. Returns its name and the folder."""
    python = os.environ.get(PYTHONS[request.param])
    if not python:
        pytest.skip(f"{PYTHONS[request.param]} does not name a Python with the library; `make integration` makes one")
    folder = tmp_path_factory.mktemp(request.param)
    save_file({"x": 2 * torch.randn(200, D) + torch.randn(D)}, folder / "x.safetensors")
    for name, sae in OURS[request.param].items():
        description = Description(sae.architecture, D, sae.dict_size, sae.k or 5, "owner/model", HOOK)
        WRITERS[request.param].write(folder / "ours" / name, sae, description, {})
    script = Path(__file__).parent / "peers" / f"with_{request.param}.py"
    command = [str(Path(python).absolute()), str(script), str(folder)]
    environment = {**os.environ, "SPARSIFY_DISABLE_TRITON": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return request.param, folder


def test_libraries_reconstruct_the_same_with_saes_we_write(exchanged):
    library, folder = exchanged
    x_BD = load_file(folder / "x.safetensors")["x"]
    for name, sae in OURS[library].items():
        acts_BF = sae.encode(x_BD)
        if (library, sae.architecture) == ("dictionary_learning", "relu"):  # it scales decoder rows to unit norm
            acts_BF = acts_BF * sae.W_dec.norm(dim=1)
        require_same(name, load_file(folder / "ours" / f"{name}.safetensors"), sae(x_BD), acts_BF)


def test_we_reconstruct_the_same_with_saes_they_save(exchanged):
    library, folder = exchanged
    x_BD = load_file(folder / "x.safetensors")["x"]
    assert {path.name for path in (folder / "theirs").iterdir() if path.is_dir()} == set(THEIRS[library])
    for name, architecture in THEIRS[library].items():
        located = locate(str(folder / "theirs" / name / ("layers.0" if library == "sparsify" else "")))
        assert (located.format, located.describe().architecture) == (library, architecture)
        sae = located.read()
        require_same(name, load_file(folder / "theirs" / f"{name}.safetensors"), sae(x_BD), sae.encode(x_BD))
