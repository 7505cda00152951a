"""The training curve: lines of its own point, in order, and a word for every line that is lost."""

import json

from sae_sweeps.training.curve import CurveFile, read_lines


def write(path, owner=None) -> list[bytes]:
    curve = CurveFile(path, 0, owner)
    for step in (1, 2, 3):
        curve.append({"step": step, "loss": 1 / step, "seconds": 0.5})
    return path.read_bytes().splitlines(keepends=True)


def test_a_line_that_a_crash_cut_is_left_out_without_a_word(tmp_path, caplog):
    lines = write(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines)[:-9])
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]
    assert CurveFile(tmp_path / "metrics.jsonl", 2).is_complete
    assert caplog.text == ""


def test_any_whole_line_that_is_damaged_is_named_and_the_others_stay(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    lines = write(path)
    for number, line in enumerate(lines):
        flipped = line.replace(b"0.5", b"0.7")
        path.write_bytes(b"".join([*lines[:number], flipped, *lines[number + 1 :]]))
        caplog.clear()
        assert [line["step"] for line in read_lines(path)] == [step for step in (1, 2, 3) if step != number + 1]
        assert f"at line {number + 1};" in caplog.text
        assert not CurveFile(path, 3).is_complete


def test_the_curve_of_another_point_is_no_curve_of_this_one(tmp_path, caplog):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "metrics.jsonl")
    (tmp_path / "one" / "metrics.jsonl").write_bytes((tmp_path / "two" / "metrics.jsonl").read_bytes())
    assert read_lines(tmp_path / "one" / "metrics.jsonl") == []
    assert "is damaged, or of another point, at line 1 and 2 more" in caplog.text


def test_lines_of_earlier_versions_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 0.5}) + "\n" for step in (4, 8)))
    assert read_lines(path) == [{"step": 4, "loss": 0.5}, {"step": 8, "loss": 0.5}]


def test_a_missing_curve_of_a_resumed_point_is_named(tmp_path, caplog):
    assert not CurveFile(tmp_path / "metrics.jsonl", 4).is_complete
    assert "has no line of the first 4 steps" in caplog.text
    assert CurveFile(tmp_path / "new.jsonl", 0).is_complete
