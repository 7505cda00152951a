"""What a sweep would take: jobs, memory, disk, and hours as earlier runs measured them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.activations.hub import unreachable_reason
from sae_sweeps.activations.model_info import ModelInfo, read_model_info
from sae_sweeps.config import LimitsConfig
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.calibration import Calibration
from sae_sweeps.sweep.packs import FLOAT, pack_bytes, split_into_packs
from sae_sweeps.sweep.point import Point

GIB = 2**30
STATES_AT_ONCE = 3  # two are kept of a point, and the next is written before the older goes


@dataclass(frozen=True)
class Plan:
    """Of the points that are not done: packs, activations, bytes and hours. Memory is that of the largest pack."""

    points: int
    done: int
    packs: list[int]
    model_tokens: int  # that the language model reads: once for a pack
    sae_tokens: int  # that the SAEs are trained on
    memory: float
    disk: float
    hours: float
    source: str  # of the hours
    taken_on_trust: tuple[str, ...] = ()  # what could not be looked at, a sentence each

    @classmethod
    def from_points(cls, points: Sequence[Point], max_points: int | None, *, here: bool) -> "Plan":
        """To plan with (task=plan), published facts of a model will do, and text that is out of reach."""
        todo = [point for point in points if not point_state.is_done(point.folder)]
        to_plan = points[0].config.task.name == "plan"
        packs = split_into_packs(todo, max_points)
        facts = {name: read_model_info(name, to_plan) for name in {point.config.model.name for point in todo}}
        calibration = Calibration(Path(points[0].config.output_root), here=here)
        guessed = not all(calibration.measured(point.config) for point in todo)
        return cls(
            points=len(points),
            done=len(points) - len(todo),
            packs=[len(pack) for pack in packs],
            model_tokens=sum(max(point.config.training.tokens for point in pack) for pack in packs),
            sae_tokens=sum(point.config.training.tokens for point in todo),
            memory=max((_memory(pack, facts[pack[0].config.model.name]) for pack in packs), default=0.0),
            disk=sum(_disk(point, facts[point.config.model.name]) for point in todo),
            hours=sum(calibration.seconds(pack, facts[pack[0].config.model.name]) for pack in packs) / 3600,
            source="for nothing is left to do"
            if not todo
            else f"guessed for a {calibration.device}: this model has not run here yet "
            f"({calibration.guessed_rate:.0e} multiply-adds a second are assumed)".replace("e+", "e")
            if guessed
            else f"by the speed of earlier runs on {calibration.device}",
            taken_on_trust=tuple(_taken_on_trust(todo, facts)) if to_plan else (),
        )

    def over(self, limits: LimitsConfig) -> list[ConfigError]:
        """The limits that the plan exceeds."""
        found = []
        for setting, limit, needed, unit in (
            ("points", limits.points, self.points, "points"),
            ("disk_gib", limits.disk_gib, self.disk / GIB, "GiB of checkpoints and SAEs"),
            ("gpu_hours", limits.gpu_hours, self.hours, f"hours ({self.source})"),
        ):
            if limit is not None and needed > limit:
                figure = f"{needed:,.0f}" if needed >= 1000 else f"{needed:.3g}"
                problem = f"the sweep takes {figure} {unit}"
                found.append(ConfigError(f"limits.{setting}", limit, problem, "sweep over less, or raise the limit"))
        return found

    def show(self) -> None:
        """Tell it, a line for each quantity."""
        sizes = " + ".join(map(str, self.packs)) if len(self.packs) <= 12 else f"at most {max(self.packs)} points"
        lines = {
            "points": f"{self.points}" + f" ({self.done} are done already)" * bool(self.done),
            "packs": f"{len(self.packs)} of {sizes}" if self.packs else "none",
            "tokens": f"{self.model_tokens:,} through the language model, {self.sae_tokens:,} through the SAEs",
            "memory": f"up to {self.memory / GIB:.2f} GiB on a device (estimate)",
            "disk": f"{self.disk / GIB:.2f} GiB at most, for resumable states and SAEs",
            "hours": f"{self.hours:.2f} in all, {self.source}",
        }
        for name, line in lines.items():
            console.print(f"{name:<8}{line}", markup=False, soft_wrap=True)
        for sentence in self.taken_on_trust:
            console.print(f"not seen: {sentence}", markup=False, soft_wrap=True)


def _taken_on_trust(points: Sequence[Point], facts: dict[str, ModelInfo]) -> Iterator[str]:
    for name, of_model in facts.items():
        if of_model.unread is not None:
            sizes = f"{of_model.n_layers} layers, d = {of_model.d_model}, {of_model.vocabulary:,} tokens"
            yield f"model.name={name} {of_model.unread}; these are its published sizes ({sizes})"
    datasets = {point.config.dataset.name for point in points if point.config.dataset.format == "hub"}
    for name in sorted(str(name) for name in datasets if not Path(str(name)).exists()):
        if (problem := unreachable_reason("dataset.name", name, "dataset")) is not None:
            yield f"dataset.name={name} {problem}"


def _memory(pack: Sequence[Point], facts: ModelInfo) -> float:
    model = facts.weights(facts.n_layers) + facts.vocabulary * facts.d_model
    width = FLOAT if pack[0].config.model.dtype == "float32" else FLOAT // 2
    return pack_bytes(pack, facts.d_model) + width * model


def _disk(point: Point, facts: ModelInfo) -> float:
    """A state has the two weight matrices and Adam's two moments of each; the SAE has the matrices."""
    matrices = 2 * point.config.dict_size * facts.d_model * FLOAT
    return (3 * STATES_AT_ONCE + 1) * matrices
