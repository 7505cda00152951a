"""Which SAEs a page has cards of, and which studies tell of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweeps.formats.layout import SAE_FOLDER
from sae_sweeps.report.studies import Finished
from sae_sweeps.sweep.comparison import ComparedPoint, display_name, finite_or_inf


@dataclass(frozen=True, kw_only=True)
class Source:
    """An SAE that may have cards: that of a point that is done, or one from elsewhere that was studied."""

    key: str
    label: str
    point: str
    sweep: Path
    folder: Path
    dict_size: int
    nmse: float
    space: tuple[str, str]  # the model and hook that its directions are of

    @classmethod
    def from_point(cls, key: str, label: str, point: ComparedPoint) -> "Source":
        return cls(
            key=key,
            label=label,
            point=point.name,
            sweep=point.sweep.folder,
            folder=point.sweep.folder / point.name / SAE_FOLDER,
            dict_size=point.config["dict_size"],
            nmse=finite_or_inf(point.metrics.get("nmse")),
            space=_space(point.config),
        )

    @classmethod
    def from_study(cls, study: Finished) -> "Source":
        """The SAE that a study is of."""
        sae = study.results["study"]["sae"]
        return cls(
            key=f"{study.sweep.name}/{sae['point']}",
            label=f"{display_name(sae['architecture'], sae['dict_size'], sae['k'])} ({sae['point']})",
            point=sae["point"],
            sweep=study.sweep.folder,
            folder=Path(sae["folder"]),
            dict_size=sae["dict_size"],
            nmse=math.inf,
            space=_space(study.results["config"]),
        )

    @property
    def prefix(self) -> str:
        """What stands before the folder of a point in a key."""
        return self.key.removesuffix(self.point)

    def studies(self, found: Sequence[Finished], task: str, part: str = "sae") -> list[Finished]:
        """The studies of a task in which it plays a part."""
        mine = [one for one in found if one.task == task and one.sweep.folder == self.sweep]
        return [one for one in mine if one.point(part) == self.point]

    def told_by(self, found: Sequence[Finished]) -> Finished | None:
        """Of the studies that tell what its latents mean the one that has read most."""
        progress_callback = [(one, one.settings) for one in self.studies(found, "latents")]
        progress_callback += [(one, one.settings.get("latents", {})) for one in self.studies(found, "meta_sae")]
        return max(progress_callback, key=lambda read: read[1].get("tokens", 0), default=(None, {}))[0]


def sources(points: Mapping[str, tuple[str, ComparedPoint]], found: Sequence[Finished]) -> list[Source]:
    """All SAEs of a page: of points that are done (by key: label, point), and those that studies are of besides."""
    made = [Source.from_point(key, label, point) for key, (label, point) in points.items() if point.results is not None]
    known = {(source.sweep, source.point) for source in made}
    for study in found:
        if study.task != "stitch" and (study.sweep.folder, study.point("sae")) not in known:
            known.add((study.sweep.folder, study.point("sae")))
            made.append(Source.from_study(study))
    return made


def _space(config: Mapping[str, Any]) -> tuple[str, str]:
    return config["model"]["name"], config["model"]["hook"]
