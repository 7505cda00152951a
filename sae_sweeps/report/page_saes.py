"""Finds the SAEs that the report's latent explorer can show, and the studies of each SAE."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweeps.formats.layout import SAE_FOLDER
from sae_sweeps.report.finished import FinishedStudy
from sae_sweeps.sweep.comparison import ComparedPoint, display_name, finite_or_inf


@dataclass(frozen=True, kw_only=True)
class PageSAE:
    """An SAE for the latent explorer: from a finished point, or from outside the sweep but analysed in a study.

    key: identifies the SAE in links
    label: name of the SAE in the page
    point: folder name of the point
    """

    key: str
    label: str
    point: str
    sweep: Path
    folder: Path
    dict_size: int
    nmse: float  # infinity if unknown
    space: tuple[str, str]  # model and hook; decoder directions can be compared only if both agree

    @classmethod
    def from_point(cls, key: str, label: str, point: ComparedPoint) -> "PageSAE":
        """Return the SAE of a finished point. `key`, `label`: of the point in the page."""
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
        """Return the SAE of a study, for an SAE from outside the sweep. The NMSE is infinity, as it is unknown."""
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
        """Return the part of `key` before the folder name of the point, such as "SWEEP/"."""
        return self.key.removesuffix(self.point)

    def find_studies(self, studies: Sequence[FinishedStudy], task: str, role: str = "sae") -> list[FinishedStudy]:
        """Return the studies of a task (such as "stitch") in which this SAE has the given role: sae, small or large."""
        same_sweep = [study for study in studies if study.task == task and study.sweep.folder == self.sweep]
        return [study for study in same_sweep if study.point(role) == self.point]

    def find_latents_study(self, studies: Sequence[FinishedStudy]) -> FinishedStudy | None:
        """Return the study with examples of this SAE's latents; None if there is none.

        If there are several, the one that searched the most tokens is returned.
        """
        candidates = [(study, study.settings) for study in self.find_studies(studies, "latents")]
        candidates += [(study, study.settings.get("latents", {})) for study in self.find_studies(studies, "meta_sae")]
        return max(candidates, key=lambda candidate: candidate[1].get("tokens", 0), default=(None, {}))[0]


def find_saes(points: Mapping[str, tuple[str, ComparedPoint]], studies: Sequence[FinishedStudy]) -> list[PageSAE]:
    """Return the SAEs of all finished points, then the SAEs from outside the sweep that the studies analyse.

    points: key of a point in the page -> (label, point)
    """
    saes = [
        PageSAE.from_point(key, label, point) for key, (label, point) in points.items() if point.results is not None
    ]
    known = {(sae.sweep, sae.point) for sae in saes}
    for study in studies:
        if "sae" in study.results["study"] and (study.sweep.folder, study.point("sae")) not in known:
            known.add((study.sweep.folder, study.point("sae")))
            saes.append(PageSAE.from_study(study))
    return saes


def _get_space(config: Mapping[str, Any]) -> tuple[str, str]:
    return config["model"]["name"], config["model"]["hook"]
