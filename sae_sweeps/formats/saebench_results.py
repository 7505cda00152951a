"""SAEBench's files of results, NAME_eval_results.json: those of its core evaluation are written, all are read.

The layout is that of sae-bench 0.6.0 (evals/base_eval_output.py, evals/core/eval_output.py).
"""

import math
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_sweeps.runtime.files import parse_json
from sae_sweeps.runtime.records import matches

SUFFIX = "_eval_results.json"
DEFINITIONS = "0.6.0"  # version of sae-bench whose definitions the core metrics have
MISSING = -1  # what SAEBench writes for a metric without a value
CATEGORIES = {  # of the core evaluation -> its metrics
    "model_behavior_preservation": ("kl_div_score", "kl_div_with_ablation", "kl_div_with_sae"),
    "model_performance_preservation": (
        "ce_loss_score", "ce_loss_with_ablation", "ce_loss_with_sae", "ce_loss_without_sae",
    ),
    "reconstruction_quality": ("explained_variance", "explained_variance_legacy", "mse", "cossim"),
    "shrinkage": ("l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"),
    "sparsity": ("l0", "l1"),
    "misc_metrics": (
        "freq_over_1_percent", "freq_over_10_percent", "normalized_freq_over_1_percent",
        "normalized_freq_over_10_percent", "average_max_encoder_cosine_sim", "average_max_decoder_cosine_sim",
        "frac_alive",
    ),
}  # fmt: skip
OF_LATENTS = (
    "feature_density", "consistent_activation_heuristic", "encoder_bias", "encoder_norm", "encoder_decoder_cosine_sim",
    "max_decoder_cosine_sim", "max_encoder_cosine_sim",
)  # fmt: skip
DIGITS = 10  # of the latents' metrics, after the point
SHAPE = {"eval_type_id": str, "eval_result_metrics": {str: {str: (float, int, None)}}}


def name_file(release: str, sae: str) -> str:
    """Return the name of the file with the results of an SAE, as SAEBench builds it."""
    return f"{release}_{sae}{SUFFIX}".replace("/", "_")


def build_core_results(
    release: str,
    sae: str,
    settings: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    latents: Mapping[str, Sequence[float]],
    described: Mapping[str, Any],
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of a file with the results of the core evaluation.

    release, sae: names of the group of SAEs, and of the SAE
    settings: entries of SAEBench's configuration of the evaluation
    metrics, latents: those of CATEGORIES and OF_LATENTS
    described: the SAE's configuration, as SAELens has it
    own: what this project adds about the origin of the numbers
    """
    sequences, context = int(settings["batch_size_prompts"]), int(settings["context_size"])
    categories: dict[str, Any] = {
        category: {name: _fill(metrics.get(name)) for name in names} for category, names in CATEGORIES.items()
    }
    categories["token_stats"] = {
        f"total_tokens_eval_{part}": settings[f"n_eval_{part}_batches"] * sequences * context
        for part in ("reconstruction", "sparsity_variance")
    }
    columns = zip(*(latents[name] for name in OF_LATENTS), strict=True)
    rows = [
        {"index": index, **{name: round(_fill(value), DIGITS) for name, value in zip(OF_LATENTS, values, strict=True)}}
        for index, values in enumerate(columns)
    ]
    return {
        "eval_type_id": "core",
        "eval_config": dict(settings),
        "eval_id": str(uuid.uuid4()),
        "datetime_epoch_millis": int(time.time() * 1000),
        "eval_result_metrics": categories,
        "eval_result_details": rows,
        "sae_bench_commit_hash": f"none: computed by sae-sweeps as sae-bench {DEFINITIONS} does",
        "sae_lens_id": sae,
        "sae_lens_release_id": release,
        "sae_lens_version": None,
        "sae_cfg_dict": dict(described),
        "eval_result_unstructured": dict(own),
    }


def _fill(value: float | None) -> float:
    return MISSING if value is None or not math.isfinite(value) else value


def read_metrics(file: Path, eval_type: str) -> dict[str, float | None]:
    """Return the metrics in a file of results that sae-bench wrote, by name; None where it has no value.

    A name that several categories have begins with the category.
    eval_type: start of the entry `eval_type_id` that the file must have
    Raises: ValueError if the file is missing, is not of this layout, or holds no number.
    """
    try:
        content = parse_json(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} cannot be read ({error.__class__.__name__})") from error
    if not matches(content, SHAPE) or not content["eval_type_id"].startswith(eval_type):
        raise ValueError(f"{file.name} does not have the layout of SAEBench's results of {eval_type}")
    found: dict[str, float | None] = {}
    categories = content["eval_result_metrics"]
    for category, metrics in categories.items():
        others = {name for other, values in categories.items() if other != category for name in values}
        for name, value in metrics.items():
            is_number = value is not None and math.isfinite(value) and value != MISSING
            found[f"{category}_{name}" if name in others else name] = float(value) if is_number else None
    if not any(value is not None for value in found.values()):
        raise ValueError(f"{file.name} holds no metric")
    return found
