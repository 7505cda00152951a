"""The report's tables of steering studies: what changing latents does to the prediction of the next token."""

import math
from collections.abc import Sequence
from typing import Any

from sae_sweeps.config.studies import parse_changes
from sae_sweeps.report.finished import FinishedStudy, skip_unreadable
from sae_sweeps.sweep.comparison import display_name

TITLES = ["Prompt", "Change", "Next word or token", "Log-probability before (nats)", "after", "Rise"]


def list_steered(studies: Sequence[FinishedStudy]) -> list[list[str]]:
    """Return table rows of all steering studies: the words asked for, then the tokens that change most.

    The first row has the titles; there is no other row without a study.
    """
    rows = [TITLES]
    for study in studies:
        if study.task == "steer":
            with skip_unreadable(study.folder):
                what = describe_change(study)
                for prompt in study.results["prompts"]:
                    named = [(f"{word} (token {found['token']!r})", found) for word, found in prompt["words"].items()]
                    changed = [(repr(found["token"]), found) for found in (*prompt["raised"], *prompt["lowered"])]
                    rows += [[prompt["prompt"], what, label, *_format(found)] for label, found in (*named, *changed)]
    return rows


def describe_change(study: FinishedStudy) -> str:
    """Return what a steering study changes in which SAE, such as "TopK 3072 k 32: latent 12 removed"."""
    settings, about = study.settings, study.results["study"]
    sae = about["sae"]
    noun = "latent" if "meta" not in about else "meta-latent"
    parts = [f"{noun} {name} set to {value:g}" for name, value in parse_changes(settings["clamp"]).items()]
    parts += [f"{noun} {name} raised by {value:g}" for name, value in parse_changes(settings["add"]).items()]
    parts += [f"{noun} {name} removed" for name in settings["remove"]]
    if settings["of"]:
        parts.append(f"in the directions of latents {', '.join(map(str, settings['of']))}")
    if settings["positions"] == "last":
        parts.append("at the last position")
    return f"{display_name(sae['architecture'], sae['dict_size'], sae['k'])}: {', '.join(parts)}"


def _format(found: dict[str, Any]) -> list[str]:
    before, after = found["before"], found["after"]
    rise = after - before
    return [f"{before:.3f}", f"{after:.3f}", f"{rise:+.3f}" if math.isfinite(rise) else ""]
