"""Model cards: the README.md of a folder with SAEs, in the form that the Hugging Face hub reads."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sae_sweeps.config.differences import flatten, shorten_paths
from sae_sweeps.config.synthetic import SYNTHETIC, is_synthetic
from sae_sweeps.evaluation.metrics import choose_metrics
from sae_sweeps.formats.description import Description
from sae_sweeps.formats.registry import WRITERS
from sae_sweeps.report.markdown import escape_markdown, format_code, format_markdown_row
from sae_sweeps.sweep.comparison import finite_or_inf

WRITTEN = "Written by sae-sweeps."  # marks a README.md that may be overwritten
CONFIG_GROUPS = ("sae", "training", "dataset", "evaluation")  # groups of settings listed in a card


def build_card(
    title: str,
    format: str,
    description: Description,
    metrics: Mapping[str, float | None],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    folder: str,
    notes: Sequence[str] = (),
) -> str:
    """Return the text of the README.md of one SAE.

    Every text is shown as it is, also where the files of a stranger's SAE hold Markdown, HTML or Python.

    metrics, config, provenance: entries of the point's results.json; empty for an SAE from another library
    folder: relative path of the SAE's folder, for the code example that loads the SAE
    notes: paragraphs on how the SAE must be used
    """
    target = WRITERS[format]
    parts = [
        _build_front_matter(target.library, description.model),
        f"# {escape_markdown(title)}",
        f"{_introduce(description)} Saved in the format of {target.library} (`pip install '{target.pip}'`):",
        f"```python\n{target.imports}\n\n{target.load.format(folder=repr(folder))}\n```",
    ]
    parts += notes
    if metrics:
        tokens = f"On {metrics['held_out_tokens']:,.0f} held-out activations" if "held_out_tokens" in metrics else ""
        parts += ["## Metrics", tokens, build_metrics_table({title: metrics})]
    if settings := {
        key: value
        for group in _list_groups(config)
        for key, value in flatten(config.get(group, {}), f"{group}.").items()
    }:
        rows = [["setting", "value"]]
        rows += [[format_code(key), format_code(_format_setting(value))] for key, value in settings.items()]
        parts += ["## Training", _build_table(rows)]
    if provenance:
        versions = ", ".join(f"{name} {version}" for name, version in provenance["packages"].items() if version)
        changed = " (with uncommitted changes)" if provenance["uncommitted_changes"] else ""
        commit = f"Trained by sae-sweeps at commit {provenance['commit']}{changed}, Python {provenance['python']}"
        parts += ["## Provenance", escape_markdown(f"{commit}; {versions}.")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _list_groups(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the groups of settings that a card lists, with what was planted for synthetic activations."""
    is_planted = bool(config) and is_synthetic(config)
    return (*CONFIG_GROUPS, "synthetic") if is_planted else CONFIG_GROUPS


def explain_normalization(normalization: str) -> str:
    """Return the note for an SAE that takes activations that were normalised before: how to do it.

    normalization: one of `saes.base.NORMALIZATIONS`, except "none"
    """
    passed, back = {
        "layer_norm": ("(x - mean) / std, with the mean and standard deviation of", "with the same two numbers"),
        "constant_norm_rescale": ("x / scale, where scale is 1 / sqrt(d) times the norm of", "with the same number"),
        "center": ("x - mean, with the mean of", "with the same number"),
    }[normalization]
    return (
        f"**It expects normalised activations**: pass {passed} each activation over its own coordinates, and map the "
        f"reconstruction back {back}."
    )


CENTERED = (
    "**It expects a centred residual stream**: load the model with `center_writing_weights=True` in TransformerLens, "
    "or subtract from each activation the mean of its entries, and add it to the reconstruction."
)
NORMS_DIFFER = (
    "**Its decoder rows do not have norm 1**: activations of different latents are in different units. Multiply each "
    "by the norm of its decoder row to compare them."
)

NORMS_RESCALED = (
    "**Its decoder rows were rescaled to norm 1**, and their norms multiplied into the encoder: each latent's "
    "activation is that of the original SAE times the norm. Reconstructions are the same."
)


def _introduce(description: Description) -> str:
    """Return one sentence on an SAE: architecture, number of latents, k, training data and width."""
    if description.directions_of:
        trained_on = f"the decoder directions of {escape_markdown(description.directions_of)}"
    elif description.model == SYNTHETIC:
        trained_on = "synthetic activations of a planted dictionary"
    else:
        trained_on = f"activations of {escape_markdown(description.model or 'a model that its files do not name')}"
    return (
        f"A sparse autoencoder ({escape_markdown(description.architecture)}) with {description.dict_size} latents"
        + (f" and k = {description.k}" if description.k is not None else "")
        + f", trained on {trained_on}"
        + (f" at {format_code(description.hook)}" if description.hook not in (None, SYNTHETIC) else "")
        + f", of width {description.d_in}."
    )


def build_overview(
    title: str, format: str, model: str | None, metrics: Mapping[str, Mapping[str, float | None]]
) -> str:
    """Return the text of the README.md of a repository with several SAEs. `metrics`: a mapping per folder name."""
    trained_on = f"activations of {escape_markdown(model or 'a language model')}"
    parts = [
        _build_front_matter(WRITERS[format].library, model),
        f"# {escape_markdown(title)}",
        f"Sparse autoencoders on {trained_on}, each in a folder of its own with a card, in the format of "
        f"{WRITERS[format].library}. {WRITTEN}",
        build_metrics_table(metrics),
    ]
    return "\n\n".join(parts) + "\n"


def build_metrics_table(metrics: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return a Markdown table of metrics with a row per SAE, the lowest NMSE first, SAEs without metrics last."""
    shown = choose_metrics(metrics.values())
    rows = [["SAE", *(metric.title for metric in shown)]]
    for name, values in sorted(metrics.items(), key=lambda item: finite_or_inf(item[1].get("nmse"))):
        rows.append([escape_markdown(name), *(metric.text(values.get(metric.name)) for metric in shown)])
    return _build_table(rows)


def _build_front_matter(library: str, model: str | None) -> str:
    """Return the YAML header of a model card: library, tags and, for a hub model, the model's name."""
    lines = ["---", f"library_name: {library.lower()}", "tags:", "- sparse-autoencoder", "- interpretability"]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model or "", re.ASCII):  # OWNER/NAME on the hub
        lines.append(f"base_model: {model}")
    return "\n".join([*lines, "---"])


def _format_setting(value: Any) -> str:
    """Return a setting's value as text. Local paths are private, so only the last two parts are given."""
    return ", ".join(map(_format_setting, value)) if isinstance(value, list) else str(shorten_paths(value))


def _build_table(rows: Sequence[Sequence[str]]) -> str:
    lines = [format_markdown_row(row) for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
