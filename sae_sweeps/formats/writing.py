"""SAEs in the formats of other libraries."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweeps.formats import dictionary_learning, saelens, sparsify
from sae_sweeps.formats.description import Description, layer_index
from sae_sweeps.saes import InferenceSAE


@dataclass(frozen=True)
class Target:
    """A format that is written: the library that reads it, and the lines that do."""

    library: str
    pip: str
    imports: str
    load: str  # with {folder}
    normalizes: bool  # whether it has a word for SAEs of normalised activations
    architectures: tuple[str, ...]  # those of config.saes.ARCHITECTURES that the library can compute


TARGETS = {
    "sae_lens": Target(
        "SAELens",
        "sae-lens>=6",
        "from sae_lens import SAE",
        'sae = SAE.load_from_disk("{folder}")',
        True,
        tuple(saelens.WRITTEN),
    ),
    "dictionary_learning": Target(
        "dictionary_learning",
        "dictionary-learning",
        "from dictionary_learning.utils import load_dictionary",
        'sae, config = load_dictionary("{folder}", device="cpu")',
        False,
        tuple(dictionary_learning.WRITTEN),
    ),
    "sparsify": Target(
        "sparsify",
        "eai-sparsify",
        "from sparsify import SparseCoder",
        'sae = SparseCoder.load_from_disk("{folder}")',
        False,
        ("topk",),
    ),
    "saebench": Target(
        "SAEBench",
        "sae-bench",
        "from sae_bench.evals.core.main import multiple_evals\nfrom sae_lens import SAE",
        'multiple_evals([("{folder}", SAE.load_from_disk("{folder}"))], 200, 2000)',
        True,
        tuple(saelens.WRITTEN),
    ),
}


def has_architecture(format: str, architecture: str) -> bool:
    """Return whether a format can express SAEs of this architecture."""
    if format in ("sae_lens", "saebench"):
        return saelens.has_architecture(architecture)
    return architecture in TARGETS[format].architectures


def write_as(format: str, folder: Path, sae: InferenceSAE, description: Description, metadata: dict[str, Any]) -> Path:
    """Write an SAE in a format; `metadata` is what SAELens' has besides. Returns where it is: sparsify's in a folder
    that is named by the module, in `folder`.

    Raises: ValueError if the format has nothing for such an SAE.
    """
    if format == "dictionary_learning":
        dictionary_learning.write(folder, sae, description)
    elif format == "sparsify":
        folder = folder / sparsify.folder_name(description.hook)
        sparsify.write(folder, sae, description)
    else:
        if format == "saebench":  # its evaluations ask for these besides
            if description.model is None or layer_index(description.hook) is None:
                raise ValueError("SAEBench asks for the model and the layer, which its files do not say")
            metadata = {**metadata, "hook_layer": layer_index(description.hook), "hook_head_index": None}
        saelens.write(folder, sae, {**metadata, "model_name": description.model, "hook_name": description.hook})
    return folder
