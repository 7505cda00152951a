"""The plan of a sweep: packs, memory, disk, and hours estimated from earlier runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_sweeps.activations.facts import read_facts
from sae_sweeps.activations.hub import unreachable_reason
from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.config import LimitsConfig
from sae_sweeps.config.sparsity import explain_sparsity, uses_listed
from sae_sweeps.runtime.console import console, pluralize
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep import point_state
from sae_sweeps.sweep.calibration import Calibration
from sae_sweeps.sweep.halving import describe_brackets, list_ended, shorten
from sae_sweeps.sweep.memory import FLOAT, number_bytes, pack_bytes
from sae_sweeps.sweep.packs import split_into_packs
from sae_sweeps.sweep.point import Point

GIB = 2**30
CHECKPOINTS_AT_ONCE = 3  # checkpoints per point: two are kept, and the next is written before the oldest is removed


@dataclass(frozen=True)
class Plan:
    """Tokens, memory, disk space and hours that the unfinished points of a sweep will take.

    points: number of all points
    done: number of finished points
    packs: number of points in each pack
    model_tokens: tokens that the language model reads, once per pack
    sae_tokens: tokens that the SAEs are trained on, summed over the points
    memory: bytes on the device for the largest pack
    disk: bytes for checkpoints and SAEs
    hours: estimated hours, summed over the packs
    source: phrase that says what the estimated hours are based on
    coefficients: for each k, the coefficient that the model lists and the settings that belong to it
    unverified: a sentence for each model or data set that could not be checked
    left_out: number of combinations of values that the setting `leave_out` leaves out
    pruned: number of points that halving has ended
    halving: a phrase for each kind of bracket of points, which says how many of them continue after each comparison
    tokens_from: a phrase that says where the tokens, or the synthetic activations in their place, come from
    """

    points: int
    done: int
    packs: list[int]
    model_tokens: int
    sae_tokens: int
    memory: float
    disk: float
    hours: float
    source: str
    coefficients: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    left_out: int = 0
    pruned: int = 0
    halving: tuple[str, ...] = ()
    tokens_from: str = "through the language model"

    @classmethod
    def from_points(
        cls, points: Sequence[Point], max_points: int | None, *, is_local: bool, partition: str | None = None
    ) -> "Plan":
        """Return the plan of the unfinished points, on this machine (`is_local`) or in Slurm jobs.

        With task=plan, an unreachable model is planned with its published sizes, and an unreachable data set is assumed
        to exist.

        max_points: largest number of points in a pack; None for no limit
        partition: type of the devices that the jobs run on, such as "cuda"; None if unknown
        Raises: ConfigError if a model cannot be used.
        """
        ended = {point.folder for point in list_ended(points)}
        todo = [point for point in points if point.folder not in ended and not point_state.is_done(point.folder)]
        to_plan = points[0].config.task.name == "plan"
        packs = split_into_packs(todo, max_points)
        expected = split_into_packs(shorten(todo), max_points)
        facts = {point.name: read_facts(point.config, to_plan) for point in todo}
        root, setting = Path(points[0].config.output_root), points[0].config.device
        calibration = Calibration(root, is_local=is_local, setting=setting, partition=partition)
        device = calibration.type
        return cls(
            points=len(points),
            done=len(points) - len(ended) - len(todo),
            pruned=len(ended),
            packs=[len(pack) for pack in packs],
            model_tokens=sum(max(point.config.training.tokens for point in pack) for pack in expected),
            sae_tokens=sum(point.config.training.tokens for pack in expected for point in pack),
            memory=max((_memory(pack, facts[pack[0].name], device) for pack in packs), default=0.0),
            disk=sum(_disk(point, facts[point.name]) for point in todo),
            hours=sum(calibration.estimate_seconds(pack, facts[pack[0].name]) for pack in expected) / 3600,
            source=_describe_source(todo, calibration),
            coefficients=tuple(
                dict.fromkeys(explain_sparsity(each.config) for each in points if uses_listed(each.config))
            ),
            halving=tuple(describe_brackets(todo)),
            tokens_from=_describe_tokens(todo),
            unverified=tuple(_find_unverified(todo, facts)) if to_plan else (),
        )

    def exceeded_limits(self, limits: LimitsConfig) -> list[ConfigError]:
        """Return an error for each limit (points, disk space, hours) that the plan exceeds."""
        errors = []
        for setting, limit, needed, unit in (
            ("points", limits.points, self.points, "points"),
            ("disk_gib", limits.disk_gib, self.disk / GIB, "GiB of checkpoints and SAEs"),
            ("gpu_hours", limits.gpu_hours, self.hours, f"hours ({self.source})"),
        ):
            if limit is not None and needed > limit:
                figure = f"{needed:,.0f}" if needed >= 1000 else f"{needed:.3g}"
                problem = f"the sweep needs {figure} {unit}, which is more than this limit"
                errors.append(ConfigError(f"limits.{setting}", limit, problem, "use fewer points, or raise the limit"))
        return errors

    def show(self) -> None:
        """Print the plan: a line per quantity, listed coefficient, and model or data set that could not be checked."""
        sizes = " + ".join(map(str, self.packs)) if len(self.packs) <= 12 else f"at most {max(self.packs)}"
        notes = [f"{self.done} are done already"] * bool(self.done)
        notes += [f"{self.pruned} are pruned"] * bool(self.pruned)
        notes += [f"{pluralize(self.left_out, 'combination')} left out"] * bool(self.left_out)
        lines = {
            "points": f"{self.points}" + f" ({', '.join(notes)})" * bool(notes),
            "packs": f"{len(self.packs)} ({sizes} points)" if self.packs else "none",
            "tokens": f"{self.model_tokens:,} {self.tokens_from}, {self.sae_tokens:,} through the SAEs",
            "memory": f"up to {self.memory / GIB:.2f} GiB on a device (estimate)",
            "disk": f"{self.disk / GIB:.2f} GiB at most, for checkpoints and SAEs",
            "hours": f"{self.hours:.2f} in total, {self.source}",
        }
        for name, line in lines.items():
            console.print(f"{name:<8}{line}", markup=False, soft_wrap=True)
        for line in self.halving:
            console.print(f"halving {line}; tokens and hours are of those that continue", markup=False, soft_wrap=True)
        for line in self.coefficients:
            console.print(f"jumprelu {line}", markup=False, soft_wrap=True)
        for sentence in self.unverified:
            console.print(f"not checked: {sentence}", markup=False, soft_wrap=True)


def _describe_source(todo: Sequence[Point], calibration: Calibration) -> str:
    """Return a phrase that says what the estimated hours of the unfinished points are based on."""
    if not todo:
        return "because all points are done"
    if all(calibration.has_measured(point.config) for point in todo):
        return f"estimated from the speed of earlier runs on {calibration.device}"
    rates = {part: f"{rate:.2g}".replace("e+", "e") for part, rate in calibration.guessed_rate.items()}
    return (
        f"guessed for a {calibration.device}: this model has not run here yet (assumed multiply-adds a second: "
        f"{rates['model']} in the model, {rates['steps']} in training steps)"
    )


def _describe_tokens(todo: Sequence[Point]) -> str:
    """Return the phrase `tokens_from`: synthetic activations are drawn, without a language model."""
    is_drawn = bool(todo) and all(point.config.dataset.is_synthetic for point in todo)
    return "drawn from planted features" if is_drawn else Plan.tokens_from


def _find_unverified(points: Sequence[Point], facts: dict[str, ModelInfo]) -> Iterator[str]:
    """Yield a sentence for each model and data set that is unreachable, so that it could not be checked."""
    for name, model in {point.config.model.name: facts[point.name] for point in points}.items():
        if model.unread is not None:
            sizes = f"{model.n_layers} layers, d = {model.d_model}, {model.vocabulary:,} tokens"
            yield f"model.name={name} {model.unread}; the plan uses its published sizes ({sizes})"
    datasets = {point.config.dataset.name for point in points if point.config.dataset.format == "hub"}
    for name in sorted(str(name) for name in datasets if not Path(str(name)).exists()):
        if (problem := unreachable_reason("dataset.name", name, "dataset")) is not None:
            yield f"dataset.name={name} {problem}"


def _memory(pack: Sequence[Point], facts: ModelInfo, device: str) -> float:
    """Estimate the bytes of device memory to train a pack, including the language model."""
    model = facts.weights(facts.n_layers) + facts.vocabulary * facts.d_model
    return pack_bytes(pack, facts, device) + number_bytes(pack[0].config) * model


def _disk(point: Point, facts: ModelInfo) -> float:
    """Estimate the bytes on disk of a point's checkpoints and SAE.

    A checkpoint has the two weight matrices and Adam's two moments of each; a saved SAE has the two matrices alone.
    """
    matrices = 2 * point.config.dict_size * facts.d_model * FLOAT
    return (3 * CHECKPOINTS_AT_ONCE + 1) * matrices
