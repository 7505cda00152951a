"""Model cards: what a folder with SAEs says of itself to people, and to the Hugging Face hub."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sae_sweeps.config.differences import flatten, shorten_path
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.formats.description import Description
from sae_sweeps.formats.writing import TARGETS
from sae_sweeps.report.markdown import markdown_row

WRITTEN = "Written by sae-sweeps."  # what an overview is known by
GROUPS = ("sae", "training", "dataset", "evaluation")  # of a configuration, that a card tells
SHOWN = ("nmse", "fvu", "l0", "dead_fraction", "ce_degradation", "ce_recovered_zero", "ce_recovered_mean")


def build_card(
    title: str,
    format: str,
    description: Description,
    metrics: Mapping[str, float],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
    folder: str,
    of_normalized: bool = False,
) -> str:
    """The README.md of one SAE. `metrics`, `config` and `provenance` may be empty: of an SAE from elsewhere nothing is
    known of them. `of_normalized`: it is to be fed activations that were normalised before."""
    target = TARGETS[format]
    parts = [
        _front_matter(target.library, description.model),
        f"# {title}",
        f"A sparse autoencoder ({description.architecture}) of {description.dict_size} latents"
        + (f", k = {description.k}," if description.k is not None else "")
        + (
            f" on the decoder directions of {description.of_directions}"
            if description.of_directions
            else f" on the activations of {description.model or 'a model that its files do not name'}"
        )
        + (f" at `{description.hook}`" if description.hook else "")
        + f", {description.d_in} wide. In the format of {target.library} (`pip install '{target.pip}'`):",
        f"```python\n{target.imports}\n\n{target.load.format(folder=folder)}\n```",
    ]
    if of_normalized:
        parts.append(
            "**It takes normalised activations**: give it (x - mean) / std, each activation less its own mean over its "
            "own standard deviation, and map what it reconstructs back by the same two numbers."
        )
    if metrics:
        tokens = f"On {metrics['held_out_tokens']:,.0f} held-out activations" if "held_out_tokens" in metrics else ""
        parts += ["## Metrics", tokens, build_metrics_table({title: metrics})]
    if settings := {
        key: value for group in GROUPS for key, value in flatten(config.get(group, {}), f"{group}.").items()
    }:
        rows = [["setting", "value"], *([f"`{key}`", f"`{_plain(value)}`"] for key, value in settings.items())]
        parts += ["## Training", _table(rows)]
    if provenance:
        versions = ", ".join(f"{name} {version}" for name, version in provenance["packages"].items() if version)
        changed = " (with uncommitted changes)" if provenance["uncommitted_changes"] else ""
        commit = f"Trained by sae-sweeps at commit {provenance['commit']}{changed}, Python {provenance['python']}"
        parts += ["## Provenance", f"{commit}; {versions}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def build_overview(title: str, format: str, model: str | None, metrics: Mapping[str, Mapping[str, float]]) -> str:
    """The README.md of a repository with several SAEs, each in a folder of its own."""
    parts = [
        _front_matter(TARGETS[format].library, model),
        f"# {title}",
        f"Sparse autoencoders on activations of {model or 'a language model'}, each in a folder of its own with a card,"
        f" in the format of {TARGETS[format].library}. {WRITTEN}",
        build_metrics_table(metrics),
    ]
    return "\n\n".join(parts) + "\n"


def build_metrics_table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """SAEs by their names, the lowest NMSE first; those of which nothing is known last."""
    rows = [["SAE", *(METRICS[name].title for name in SHOWN)]]
    for name, of_it in sorted(metrics.items(), key=lambda one: one[1].get("nmse", float("inf"))):
        rows.append([name, *(METRICS[shown].text(of_it.get(shown)) for shown in SHOWN)])
    return _table(rows)


def _front_matter(library: str, model: str | None) -> str:
    lines = ["---", f"library_name: {library.lower()}", "tags:", "- sparse-autoencoder", "- interpretability"]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model or ""):  # OWNER/NAME on the hub
        lines.append(f"base_model: {model}")
    return "\n".join([*lines, "---"])


def _plain(value: Any) -> str:
    """A setting as text; of paths on this machine no more than their ends."""
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return shorten_path(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [markdown_row(row) for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
