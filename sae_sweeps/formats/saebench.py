"""SAEBench's folders: SAELens' files, with the layer of the hook, which SAEBench's evaluations require."""

from pathlib import Path
from typing import Any

from sae_sweeps.activations.hooks import split_hook
from sae_sweeps.formats import saelens
from sae_sweeps.formats.description import Description
from sae_sweeps.formats.interface import Writer
from sae_sweeps.saes import InferenceSAE


def export(folder: Path, sae: InferenceSAE, description: Description, metadata: dict[str, Any]) -> list[Path]:
    """Write an SAE to `folder` in SAELens' format with the layer of the hook, for SAEBench. Returns the files.

    Raises: ValueError if `description` does not name the model and a hook in a transformer block.
    """
    parts = split_hook(description.hook)
    if description.model is None or parts is None:
        raise ValueError("SAEBench needs the model and the layer of the SAE, but the SAE's files do not name both")
    return saelens.export(folder, sae, description, {**metadata, "hook_layer": parts[0], "hook_head_index": None})


WRITER = Writer(
    library="SAEBench",
    pip="sae-bench",
    imports="from sae_bench.evals.core.main import multiple_evals\nfrom sae_lens import SAE",
    load="multiple_evals([({folder}, SAE.load_from_disk({folder}))], 200, 2000)",
    normalizes=True,
    architectures=tuple(saelens.WRITTEN),
    takes_foreign=True,
    write=export,
)
