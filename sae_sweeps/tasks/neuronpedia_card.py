"""The README.md of a folder that Neuronpedia imports."""

from collections.abc import Mapping

from sae_sweeps.formats.neuronpedia.records import Source
from sae_sweeps.report.markdown import escape_markdown, format_code
from sae_sweeps.tasks.model_card import WRITTEN


def build_readme(source: Source, written: Mapping[str, int], normalization: str | None) -> str:
    """Return the text of the README.md of a source.

    written: number of lines by folder
    normalization: how the SAE normalises activations; None if no vector was written
    """
    path = f"v1/{source.model}/{source.id}"
    hook = format_code(f"blocks.{source.layer}.{source.hook_type}")
    parts = [
        f"# {escape_markdown(source.id)}",
        f"Latents of a sparse autoencoder ({escape_markdown(source.notes.partition(';')[0])}) on {hook} of "
        f"{escape_markdown(source.model_title)}, in the layout that Neuronpedia imports. {WRITTEN}",
        f"{written['features']:,} latents, {written['activations']:,} examples, {written['explanations']:,} labels, "
        f"{written['vectors']:,} steering vectors.",
        f"Neuronpedia imports it from {format_code(path)} of its data sets, where its team puts it on request.",
    ]
    if written["vectors"]:
        parts.append(
            f"Each line of {format_code('vectors/')} is a request that neuronpedia.org takes at "
            f"{format_code('/api/vector/new')} with a key of your account. The default strength is the largest "
            "activation of the latent that was found."
        )
    if normalization in ("layer_norm", "constant_norm_rescale"):
        parts.append(
            f"**The SAE normalises activations ({normalization})**, so its activations and the strengths are in units "
            "of normalised activations. For the same effect in the model, multiply a strength by the scale that is "
            "divided out there."
        )
    return "\n\n".join(parts) + "\n"
