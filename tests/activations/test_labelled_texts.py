"""Data sets of labelled texts: what is read of CSV and JSON lines, and what is refused in one line."""

import gzip
import json

import numpy as np
import pytest

from sae_sweeps.activations.labelled_texts import find_sets, read_set
from sae_sweeps.runtime.errors import ConfigError

ROWS = [("a, text", "no"), ('with "quotes"\nand lines', "yes")] * 60


def write_csv(file, rows, titles="text,label"):
    lines = [titles, *('"{}",{}'.format(text.replace('"', '""'), label) for text, label in rows)]
    file.write_text("\n".join(lines) + "\n")
    return file


def write_json(file, rows, names=("text", "label")):
    file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    return file


def test_csv_json_and_compressed_files_give_the_same_set(tmp_path):
    write_csv(tmp_path / "a.csv", ROWS, "prompt,target")
    write_json(tmp_path / "b.jsonl", ROWS)
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "source.json").write_text("{}")
    found = find_sets(tmp_path, [])
    assert list(found) == ["a", "b", "c"]
    for name, file in found.items():
        one = read_set(name, file, 5000, 58)
        assert one.texts == [text for text, _ in ROWS]
        assert (one.negative, one.positive) == ("no", "yes")
        np.testing.assert_array_equal(one.is_positive_T, [label == "yes" for _, label in ROWS])


def test_sets_are_in_the_order_of_their_numbers_and_can_be_chosen(tmp_path):
    for name in ("100_b", "21_c", "5_a", "own"):
        write_csv(tmp_path / f"{name}.csv", ROWS)
    assert list(find_sets(tmp_path, [])) == ["5_a", "21_c", "100_b", "own"]
    assert list(find_sets(tmp_path, ["100_b", "5_a"])) == ["5_a", "100_b"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [((9, 10), ("9", "10")), ((True, False), ("False", "True")), (("10", "9"), ("9", "10")), ((0, 1.5), ("0", "1.5"))],
)
def test_the_larger_or_later_label_is_positive(tmp_path, labels, classes):
    file = write_json(tmp_path / "a.jsonl", [("x", labels[row % 2]) for row in range(120)])
    found = read_set("a", file, 5000, 58)
    assert (found.negative, found.positive) == classes


def test_only_the_first_rows_are_read(tmp_path):
    file = write_csv(tmp_path / "a.csv", [*ROWS, ("", "third")])
    assert len(read_set("a", file, 120, 58).texts) == 120


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("x", str(row % 3)) for row in range(200)], r"3 classes \('0', '1', '2'\).*one file per pair"),
        ([("x", "1")] * 200, r"has 1 classes \('1'\)"),
        ([], "has no rows"),
        ([("x", "1"), ("y", "0")] * 57, "only 57 texts with the label '0' in its first 5,000 rows; 58 are needed"),
        ([*ROWS, (" ", "no")], "row 120 has an empty text.*mend or remove the row"),
        ([*ROWS, ("x", "")], "row 120 has an empty label"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(tmp_path, rows, problem):
    file = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(ConfigError, match=problem) as error:
        read_set("a", file, 5000, 58)
    assert str(error.value).startswith(f"probe.data={file}: ")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("words,label\nx,1\n", "no column of texts; its columns are words, label.*text \\(or prompt\\)"),
        ("text,class\nx,1\n", "no column of labels"),
        ("text,label\nx,y,1\n", r"row 0 \(line 2\) has 3 cells, and the titles are 2"),
        ('text,label\n"x"y,1\n', "is not CSV"),
        ("", "no column of texts; its columns are none"),
        (b"text,label\n\xff,1\n", "is not UTF-8 text"),
        (b"\x1f\x8b cut", "is cut off or damaged"),
    ],
)
def test_files_that_are_no_data_set_are_refused(tmp_path, content, problem):
    file = tmp_path / "a.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=problem) as error:
        read_set("a", file, 5000, 58)
    assert str(error.value).startswith(f"probe.data={file}: ")


def test_json_of_other_kinds_is_refused(tmp_path):
    file = tmp_path / "a.jsonl"
    for content, problem in (
        ('{"text": 3, "label": 1}', "row 0 has a number in place of a text"),
        ('{"text": "x", "label": null}', "row 0 has null in place of a label"),
        ('["x"]\n', "row 0 is a string, not an object"),
        ('{"text": ', "is not JSON"),
    ):
        file.write_text(content)
        with pytest.raises(ConfigError, match=problem):
            read_set("a", file, 5000, 58)


def test_folders_without_the_set_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        find_sets(tmp_path / "nowhere", [])
    with pytest.raises(ConfigError, match=r"has no \.csv or \.jsonl files"):
        find_sets(tmp_path, [])
    write_csv(tmp_path / "a.csv", ROWS)
    with pytest.raises(ConfigError, match=r"probe.sets=b: no such data set; 1 are there: a"):
        find_sets(tmp_path, ["b"])
    write_json(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(ConfigError, match=r"has the name of another data set, a\.csv"):
        find_sets(tmp_path, [])
