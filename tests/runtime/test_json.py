"""JSON files have no NaN and no infinity, neither when they are written nor when they are read."""

import json
import math

import pytest

from sae_sweeps.runtime.files import parse_json, read_json, replace_non_finite, to_json, write_csv, write_json
from sae_sweeps.training.curve import CurveFile, last_line, read_lines

NON_FINITE = [math.nan, math.inf, -math.inf]


def refuse(name):
    raise ValueError(f"{name} is not JSON")


@pytest.mark.parametrize("number", NON_FINITE)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [1.5, x], lambda x: {"a": {"b": (x, "NaN")}}])
def test_what_is_written_is_strict(tmp_path, number, wrap):
    write_json(tmp_path / "file.json", wrap(number))
    written = json.loads((tmp_path / "file.json").read_text(), parse_constant=refuse)
    assert written == json.loads(json.dumps(wrap(None)))
    assert json.loads(to_json(wrap(number), compact=True), parse_constant=refuse) == written
    assert json.loads(json.dumps(replace_non_finite(wrap(number)), allow_nan=False)) == written


def test_finite_values_are_written_as_they_are(tmp_path):
    value = {"a": [1, 2.5, 1e308, True, None, "ä"], "b": {}}
    write_json(tmp_path / "file.json", value)
    assert (tmp_path / "file.json").read_text() == json.dumps(value, indent=2) + "\n"
    assert to_json(value) == json.dumps(value)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e400"])
def test_what_is_read_is_none_for_a_number_that_is_none(tmp_path, text):
    (tmp_path / "file.json").write_text(f'{{"a": [{text}, 2.5], "b": "{text}"}}')
    assert read_json(tmp_path / "file.json") == {"a": [None, 2.5], "b": text}
    assert parse_json(text) is None


@pytest.mark.parametrize("text", ["", "{", "nan", "[1,]", "{'a': 1}", "[" * 100_000])
def test_what_is_not_json_is_no_value(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    assert read_json(tmp_path / "file.json") is None


@pytest.mark.parametrize("number", NON_FINITE)
def test_a_training_curve_is_strict(tmp_path, number):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": NaN, "seconds": 1.5}\n')
    curve = CurveFile(path, 5)
    curve.append({"step": 2, "loss": number, "seconds": number})
    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [{name: line[name] for name in ("step", "loss", "seconds")} for line in lines] == read_lines(path)
    assert read_lines(path) == [{"step": 1, "loss": None, "seconds": 1.5}, {**last_line(path)}]
    assert last_line(path) == {"step": 2, "loss": None, "seconds": None}
    assert CurveFile(path, 5).total("seconds") == 1.5


@pytest.mark.parametrize("number", [None, *NON_FINITE])
def test_a_csv_file_has_an_empty_cell_for_a_number_that_is_none(tmp_path, number):
    write_csv(tmp_path / "rows.csv", [{"a": 1.5, "b": number, "c": "nan"}])
    assert (tmp_path / "rows.csv").read_text() == "a,b,c\n1.5,,nan\n"
