"""The SAEs that can have cards in the page, and the studies of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweeps.formats.layout import SAE_FOLDER
from sae_sweeps.report.studies import FinishedStudy
from sae_sweeps.sweep.comparison import ComparedPoint, display_name, finite_or_inf


@dataclass(frozen=True, kw_only=True)
class PageSAE:
    """An SAE that can have cards: that of a finished point, or one from outside the sweep that was studied."""

    key: str
    label: str
    point: str
    sweep: Path
    folder: Path
    dict_size: int
    nmse: float  # infinite if not known
    space: tuple[str, str]  # model and hook; only directions of the same space can be compared

    @classmethod
    def from_point(cls, key: str, label: str, point: ComparedPoint) -> "PageSAE":
        """Describe the SAE of a finished point."""
        return cls(
            key=key,
            label=label,
            point=point.name,
            sweep=point.sweep.folder,
            folder=point.sweep.folder / point.name / SAE_FOLDER,
            dict_size=point.config["dict_size"],
            nmse=finite_or_inf(point.metrics.get("nmse")),
            space=_get_space(point.config),
        )

    @classmethod
    def from_study(cls, study: FinishedStudy) -> "PageSAE":
        """Describe the SAE of a study, for one from outside the sweep."""
        sae = study.results["study"]["sae"]
        return cls(
            key=f"{study.sweep.name}/{sae['point']}",
            label=f"{display_name(sae['architecture'], sae['dict_size'], sae['k'])} ({sae['point']})",
            point=sae["point"],
            sweep=study.sweep.folder,
            folder=Path(sae["folder"]),
            dict_size=sae["dict_size"],
            nmse=math.inf,
            space=_get_space(study.results["config"]),
        )

    @property
    def prefix(self) -> str:
        """Return the part of the key before the folder name of the point."""
        return self.key.removesuffix(self.point)

    def find_studies(self, studies: Sequence[FinishedStudy], task: str, role: str = "sae") -> list[FinishedStudy]:
        """Return the studies of a task in which this SAE has the given role: sae, small or large."""
        same_sweep = [study for study in studies if study.task == task and study.sweep.folder == self.sweep]
        return [study for study in same_sweep if study.point(role) == self.point]

    def find_latents_study(self, studies: Sequence[FinishedStudy]) -> FinishedStudy | None:
        """Return the study with examples of this SAE's latents; if there are several, the one that read most tokens."""
        candidates = [(study, study.settings) for study in self.find_studies(studies, "latents")]
        candidates += [(study, study.settings.get("latents", {})) for study in self.find_studies(studies, "meta_sae")]
        return max(candidates, key=lambda candidate: candidate[1].get("tokens", 0), default=(None, {}))[0]


def find_saes(points: Mapping[str, tuple[str, ComparedPoint]], studies: Sequence[FinishedStudy]) -> list[PageSAE]:
    """Return the SAEs of all finished points, then those from outside the sweep that were studied.

    points: label and point by key
    """
    saes = [
        PageSAE.from_point(key, label, point) for key, (label, point) in points.items() if point.results is not None
    ]
    known = {(sae.sweep, sae.point) for sae in saes}
    for study in studies:
        if study.task != "stitch" and (study.sweep.folder, study.point("sae")) not in known:
            known.add((study.sweep.folder, study.point("sae")))
            saes.append(PageSAE.from_study(study))
    return saes


def _get_space(config: Mapping[str, Any]) -> tuple[str, str]:
    return config["model"]["name"], config["model"]["hook"]
