"""Successive halving in the report: how far each point got, by its objective at each rung."""

from collections.abc import Iterable, Sequence

from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.sweep.comparison import ComparedPoint
from sae_sweeps.sweep.halving import Rungs, read_rungs
from sae_sweeps.sweep.point_state import DONE, PRUNED

ABOUT = (
    "Points compared in training (hydra/sweeper=halving): after some activations the best of a bracket continue "
    "(✓) and the others are pruned (✗). A pruned point keeps its state; the same command without halving trains it on."
)
CONTINUED, ENDED = "✓", "✗"

Labelled = tuple[str, ComparedPoint]  # the label of a point in the page, and the point


def describe_halving(points: Iterable[ComparedPoint]) -> list[str]:
    """Return a sentence on how many points were pruned, and how much training that saved; none if none was."""
    compared = [point for point in points if _read(point) is not None]
    pruned = sum(point.state.state == PRUNED for point in compared)
    if not pruned:
        return []
    full = sum(point.config["training"]["tokens"] for point in compared)
    trained = sum(_count_trained(point) for point in compared)
    share = f"{trained:,} of {full:,} activations, {trained / full:.0%}"
    return [f"Halving: {pruned} of {len(compared)} points were pruned; the points were trained on {share}."]


def list_brackets(labelled: Iterable[Labelled]) -> list[list[str]]:
    """Return table rows of all points that were compared, by bracket and by how far they got. First the titles."""
    known = [(label, point, rungs) for label, point in labelled if (rungs := _read(point)) is not None]
    columns = sorted({tokens for *_, rungs in known for tokens in rungs.values})
    brackets = list(dict.fromkeys(rungs.bracket for *_, rungs in known))
    rows = sorted(known, key=lambda row: (brackets.index(row[2].bracket), *_rank(row[1], row[2])))
    objectives = list(dict.fromkeys(METRICS[rungs.objective].title for *_, rungs in known))
    titles = [
        "SAE",
        "bracket",
        *(f"at {tokens:,}" for tokens in columns),
        f"{', '.join(objectives)} at the end",
        "state",
    ]
    lines = [
        [label, str(1 + brackets.index(rungs.bracket)), *_format_rungs(point, rungs, columns), point.state.state]
        for label, point, rungs in rows
    ]
    if len(brackets) > 1:
        return [titles, *lines]
    return [[cell for at, cell in enumerate(row) if at != 1] for row in [titles, *lines]]


def _read(point: ComparedPoint) -> Rungs | None:
    rungs = read_rungs(point.sweep.folder / point.name)
    return rungs if rungs is not None and rungs.values else None


def _count_trained(point: ComparedPoint) -> int:
    training = point.config["training"]
    return int(training["tokens"] if point.state.state == DONE else point.state.step * training["batch_size"])


def _rank(point: ComparedPoint, rungs: Rungs) -> tuple[bool, int, float]:
    """Return a key that sorts points: finished ones first, then by the last rung, then by the objective there."""
    latest = max(rungs.values)
    value = point.metrics.get(rungs.objective) if point.state.state == DONE else rungs.values[latest]
    return point.state.state != DONE, -latest, rungs.cost(value)


def _format_rungs(point: ComparedPoint, rungs: Rungs, columns: Sequence[int]) -> list[str]:
    """Return the cells of a point: the objective at each rung, with a mark of what came of it, and at the end."""
    metric, latest = METRICS[rungs.objective], max(rungs.values)
    cells = []
    for tokens in columns:
        if tokens not in rungs.values:
            cells.append("")
            continue
        has_ended = tokens == latest and point.state.state == PRUNED
        mark = ENDED if has_ended else CONTINUED if tokens < latest or point.state.state == DONE else ""
        cells.append(f"{metric.text(rungs.values[tokens])} {mark}".rstrip())
    return [*cells, metric.text(point.metrics.get(metric.name)) if point.state.state == DONE else ""]
