"""Sentences of the report on which SAE is better, how surely, and which to take; and the table of differences."""

import math
from collections.abc import Sequence

from sae_sweeps.activations.units import DOCUMENT, FEW, SEQUENCE
from sae_sweeps.evaluation.bootstrap import Difference, Interval
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.report.contests import CE, ERROR, Contest, Kind
from sae_sweeps.sweep.comparison import distinguish_data

ANSWERED = 3  # values of k that have a sentence; the table has all
PAIRS = 4  # sentences on one k: on the best of all, and of each size
RIVALS = 5  # kinds that the best of a k, and the best of a size there, are compared with in the table
FEW_SEEDS = 5  # seeds below which their spread is badly known
TITLES = ("SAEs", "k", "lower NMSE by (95 % interval)", "lower CE degradation by (95 % interval)", "seeds")


def describe_answers(contests: Sequence[Contest]) -> list[str]:
    """Return sentences on which SAE is better at each k and size, then on which to take; none if nothing is known."""
    fought = [contest for contest in contests if len(contest.kinds) > 1]
    several = len({contest.data for contest in contests}) > 1
    start = distinguish_data([contest.data for contest in contests])
    lines = []
    for contest in fought[:ANSWERED]:
        where = f"{start[contest.data]}: " * several
        asked = _choose_asked(contest)[: PAIRS if len(fought) == 1 else 1]
        lines += [where + _describe_pair(contest, better, other) for better, other in asked]
    if len(fought) > ANSWERED:
        lines.append(f"The table of differences has the other {len(fought) - ANSWERED} values of k.")
    lines += [] if several else _describe_choice(contests)
    return [*lines, _describe_method(fought)] if fought else []


def _choose_asked(contest: Contest) -> list[tuple[Kind, Kind]]:
    """Return the best and the second best kind: of all, then of each size that has several, without repetition."""
    ranked = contest.rank()
    asked = [(ranked[0], ranked[1])]
    for size in sorted({kind.dict_size for kind in ranked}):
        first = [kind for kind in ranked if kind.dict_size == size][:2]
        if len(first) == 2 and tuple(first) not in asked:
            asked.append((first[0], first[1]))
    return asked


def _describe_pair(contest: Contest, better: Kind, other: Kind) -> str:
    """Return a sentence on the kind with the lower NMSE and another one: by how much, and whether that is clear."""
    found = contest.compare(better, other, contest.error)
    at_k, by = f" at an L0 of {contest.k}" * contest.is_at_k, format_difference(found.interval, ERROR)
    if found.interval.is_clear:
        text = f"{better.label} beats {other.label}{at_k}: its NMSE is lower by {by}"
    else:
        text = f"{better.label} and {other.label} cannot be distinguished by NMSE{at_k}: they differ by {by}"
    text += f"{_describe_ce(contest, better, other)}."
    if found.seeds == found.data_seeds == 1:  # with other seeds, the order may be another
        return f"Of these two trained SAEs, {text}"
    return f"{text} {_describe_seeds(found)}"


def _describe_ce(contest: Contest, better: Kind, other: Kind) -> str:
    """Return the part of a sentence on the CE degradation; empty if a kind has none."""
    if contest.ce is None:
        return ""
    found = contest.compare(better, other, contest.ce).interval
    if not found.is_clear:
        return f", and their CE degradations cannot be distinguished: {format_difference(found, CE)} nats"
    if found.value > 0:
        return f", and the CE degradation of {better.label} is lower by {format_difference(found, CE)} nats"
    turned = Interval(-found.value, -found.high, -found.low)
    return f", but the CE degradation of {other.label} is lower by {format_difference(turned, CE)} nats"


def format_difference(interval: Interval, metric: str) -> str:
    """Return a difference with its interval, such as "0.0021 (0.0017 to 0.0025)".

    It has two digits of its uncertainty, and at least one digit of each end, so that an end near 0 has its sign.
    """
    value, low, high = interval
    finest = min((high - low) / 20, abs(low), abs(high))
    decimals = METRICS[metric].decimals
    if 0 < finest < math.inf:
        decimals = min(max(-math.floor(math.log10(finest)), 3), 8)
    return f"{value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def _describe_seeds(found: Difference) -> str:
    """Return a sentence on the seeds that a difference is over, and on the difference without their spread."""
    few = " (few: the interval is wide)" * (max(found.seeds, found.data_seeds) < FEW_SEEDS)
    alone = format_difference(found.trained, ERROR)
    return f"Over {_count_seeds(found)}{few}; over these trained SAEs alone, by {alone}."


def _count_seeds(found: Difference) -> str:
    counted = ((found.seeds, "initialisations"), (found.data_seeds, "orders of the data"))
    return " and ".join(f"{number} {name}" for number, name in counted if number > 1) or "one of each"


def _describe_choice(contests: Sequence[Contest]) -> list[str]:
    """Return which SAE to take for each budget of L0 or CE degradation, as one line: those that are best at their k."""
    front: list[str] = []
    lowest = math.inf
    for contest in contests:
        if contest.ce is None or not contest.is_at_k:
            return []
        best, *others = contest.rank(contest.ce)
        if (ce := best.get_mean(contest.ce)) >= lowest:
            continue
        lowest = ce
        tied = [other for other in others if not contest.compare(best, other, contest.ce).interval.is_clear]
        smallest = min([best, *tied], key=lambda kind: kind.dict_size)
        alike = f"; {_list_labels(tied)} cannot be distinguished from it" * bool(tied)
        alike += ", and is smaller" * (smallest is not best and len(tied) == 1)
        budget = f"With a budget of L0 {contest.k}, or of {ce:.3f} nats of CE degradation,"
        front.append(f"{budget} take {best.label}{alike}.")
    return [" ".join(front)] * bool(front)


def _list_labels(kinds: Sequence[Kind]) -> str:
    return " and ".join(kind.label for kind in kinds[:2]) + f" and {len(kinds) - 2} more" * (len(kinds) > 2)


def _describe_method(contests: Sequence[Contest]) -> str:
    """Return a sentence on the intervals: by which method, and over what."""
    units = sorted({(contest.units, contest.unit) for contest in contests})
    counted = " or ".join(f"{number:,} {unit}s" for number, unit in units)
    held_out = f" of the held-out text, because fewer than {FEW} documents are held out"
    if not any(unit == SEQUENCE for _, unit in units):
        held_out = " of the held-out text" if any(unit == DOCUMENT for _, unit in units) else ""
    return f"In brackets are 95 % intervals, from a paired bootstrap over {counted}{held_out}."


def list_differences(contests: Sequence[Contest]) -> list[list[str]]:
    """Return the rows of the table of differences, first the titles: the best of each k and size beside its rivals."""
    rows = [list(TITLES)]
    for contest in contests:
        for better, other in _choose_pairs(contest):
            error = contest.compare(better, other, contest.error)
            ce = None if contest.ce is None else contest.compare(better, other, contest.ce)
            cells = [_format_cell(error, ERROR), "–" if ce is None else _format_cell(ce, CE)]  # noqa: RUF001
            rows.append([f"{better.label}, than {other.label}", str(contest.k), *cells, _count_seeds(error)])
    return rows


def _choose_pairs(contest: Contest) -> list[tuple[Kind, Kind]]:
    """Return the best kind of all beside its rivals, and the best of each size beside its rivals of that size."""
    ranked = contest.rank()
    sizes = [[kind for kind in ranked if kind.dict_size == size] for size in sorted({one.dict_size for one in ranked})]
    fields = [members[: RIVALS + 1] for members in (ranked, *sizes)]
    return list(dict.fromkeys((first, other) for first, *others in fields for other in others))


def _format_cell(found: Difference, metric: str) -> str:
    return format_difference(found.interval, metric) + ", unclear" * (not found.interval.is_clear)
