"""Scaling laws in the report: sentences, a table, and the numbers of the charts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sae_sweeps.report.blocks import round_digits
from sae_sweeps.report.cells import format_cell

NMSE = ".4f"
CLEAR = 0.005  # exponent below which NMSE does not fall, in the two digits that are shown
ABOUT_LAWS = (
    "Laws of how the NMSE falls, fitted to the points that differ only in size, k, tokens and seeds (task=scaling). "
    "The largest size is predicted from the others; sizes of scaling.dict_sizes are not used at all."
)
TITLES = ("SAEs", "latents", "k", "tokens", "predicted NMSE (95 % interval)", "measured", "off by", "predicted from")


def describe_laws(laws: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sentences on all laws."""
    return [line for law in laws for line in describe_law(law)]


def describe_law(law: Mapping[str, Any]) -> list[str]:
    """Return sentences on a law: how the NMSE falls at each k, what was predicted, and by how much that is off."""
    lines = [_describe_fall(law, one) for one in law["by_k"]]
    lines += [_describe_held_out(law, one) for one in law["held_out"]]
    lines += [_describe_prediction(law, one) for one in law["predictions"]]
    lines += _describe_budget(law) if law["budget"] else []
    return [*lines, *(f"{law['label']}: {note[0].lower()}{note[1:]}" for note in law["notes"])]


def _describe_fall(law: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    is_clear = one["exponent"]["low"] > CLEAR
    falls = "NMSE falls" if is_clear else "it is not clear from these points that NMSE falls"
    text = f"{law['label']}, k {one['k']}: {falls} with the number F of latents, as F^-b, b = "
    text += _format_interval(one["exponent"], ".2f")
    if one["irreducible"] is None:
        return f"{text}."
    return f"{text}, towards {_format_interval(one['irreducible'], NMSE)}, which does not fall with F."


def _describe_held_out(law: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    return f"{_name_sizes(law, one)}: predicted from the others {_format_interval(one, NMSE)}{_describe_miss(one)}."


def _describe_prediction(law: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    measured = _describe_miss(one) if one["nmse"] is not None else ", not measured yet"
    return f"{_name_sizes(law, one)}: predicted {_format_interval(one, NMSE)}{measured}."


def _describe_budget(law: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each k on the SAE with the lowest predicted NMSE that the hours suffice for."""
    budget = law["budget"]
    hours = f"in {budget['hours']:g} hours {budget['speed']}"
    if not budget["best"]:
        return [f"{law['label']}: no size of this law can be trained {hours}."]
    best = [f"{_name_sizes(law, one)}: predicted {_format_interval(one, NMSE)}" for one in budget["best"]]
    return [f"{line}, the lowest that can be trained {hours}." for line in best]


def _name_sizes(law: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    return f"{law['label']} {one['dict_size']}, k {one['k']}, {one['tokens']:,} tokens"


def _describe_miss(one: Mapping[str, Any]) -> str:
    side = "high" if one["miss"] > 0 else "low"
    where = "in" if one["low"] <= one["nmse"] <= one["high"] else "outside of"
    return f", measured {one['nmse']:{NMSE}}: {abs(one['miss']):.1%} too {side}, {where} the interval"


def _format_interval(ends: Mapping[str, float], spec: str) -> str:
    return f"{ends['value']:{spec}} ({ends['low']:{spec}} to {ends['high']:{spec}})"


def list_predictions(laws: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return table rows of the predictions of all laws. The first row has the titles."""
    return [list(TITLES), *(row for law in laws for row in _list_rows(law))]


def _list_rows(law: Mapping[str, Any]) -> Iterator[list[str]]:
    for source, predictions in (("the other points", law["held_out"]), ("the law", law["predictions"])):
        for one in predictions:
            sizes = [f"{one['dict_size']:,}", str(one["k"]), f"{one['tokens']:,}"]
            measured = [format_cell(one["nmse"], NMSE), format_cell(one["miss"], "+.1%")]
            yield [law["label"], *sizes, _format_interval(one, NMSE), *measured, source]


def collect_laws(laws: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the laws for the charts, with rounded curves."""
    return [{**law, "by_k": [{**one, "curve": _round_curve(one["curve"])} for one in law["by_k"]]} for law in laws]


def _round_curve(curve: Mapping[str, Sequence[float]]) -> dict[str, list[float | None]]:
    return {name: [round_digits(value) for value in values] for name, values in curve.items()}
