"""Labels of latents: every line is checked, and what is kept is read back."""

import json
import re
from pathlib import Path

import pytest

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.sweep.labels import Label, parse_labels, read_labels, write_labels

SIZES = {"topk-8-k2-seed0-0123abcd": 8, "topk-9-k2-seed0-0123abcd": 9, "topk-9-k2-seed0-4567cdef": 9}
EIGHT, NINE = "topk-8-k2-seed0-0123abcd", "topk-9-k2-seed0-0123abcd"


def written(*lines: str) -> Path:
    file = Path("labels.jsonl")
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def line(sae: str = EIGHT, latent: object = 0, text: object = "a text", **more: object) -> str:
    return json.dumps({"sae": sae, "latent": latent, "text": text, **more})


def test_labels_are_read_by_sae_and_latent():
    file = written(
        "\ufeff" + line(latent=7, text=" dates \n of <b>letters</b> ", score=0.5, source="Jane"),
        "",
        line("topk-8-k2-seed0", 0, "é 漢"),  # a title, which only one SAE has
        line(NINE, 8, "x", score=None, source=None),
        line(NINE, 0, "y", score=-3),
    )
    assert parse_labels(file, SIZES) == {
        EIGHT: {7: Label("dates \n of <b>letters</b>", 0.5, "Jane"), 0: Label("é 漢")},
        NINE: {8: Label("x"), 0: Label("y", -3.0)},
    }


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("[" * 100_000, "is not JSON"),
        ('{"sae": NaN}', "is not JSON"),
        ('{"sae": "x", "latent": 0}', "has no text"),
        (line("topk-7"), "there is no SAE 'topk-7'"),
        (line("topk-9-k2-seed0"), "there is no SAE 'topk-9-k2-seed0'"),  # two SAEs have this title
        (line(latent=8), f"{EIGHT} has no latent 8"),
        (line(latent=-1), f"{EIGHT} has no latent -1"),
        (line(latent="1"), f"{EIGHT} has no latent '1'"),
        (line(latent=True), f"{EIGHT} has no latent True"),
        (line(latent=1.0), f"{EIGHT} has no latent 1.0"),
        (line(text=" "), "text must be a text that is not empty"),
        (line(text=["a"]), "text must be a text that is not empty"),
        (line(text="\ud800"), "has half of a character"),
        (line(score="high"), "score must be a finite number"),
        (line(score=True), "score must be a finite number"),
        (line(source=3), "source must be a text"),
        (line(scores=1), "has an unknown entry 'scores'"),
        (line(latent=3), f"latent 3 of {EIGHT} has a label in line 1 already"),
        (line("topk-8-k2-seed0", 3), f"latent 3 of {EIGHT} has a label in line 1 already"),
    ],
)
def test_a_bad_line_is_one_clear_error_with_its_number(bad, problem):
    file = written(line(latent=3), "", bad, line(latent=5))
    with pytest.raises(ConfigError, match=re.escape(f"latents.labels=labels.jsonl: line 3: {problem}")) as caught:
        parse_labels(file, SIZES)
    assert "Fix: " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_bytes_that_are_no_text_and_files_that_cannot_be_read_are_errors():
    Path("labels.jsonl").write_bytes(b"\xff\xfe{}\n")
    with pytest.raises(ConfigError, match="line 1: is not JSON"):
        parse_labels(Path("labels.jsonl"), SIZES)
    for path in (Path("none.jsonl"), Path()):
        with pytest.raises(ConfigError, match="cannot be read"):
            parse_labels(path, SIZES)


def test_labels_are_kept_in_place_of_earlier_ones_and_read_back():
    folder = Path("first")
    assert read_labels(folder) == {}
    labels = {EIGHT: {7: Label("a\u2028b", 0.1), 2: Label("c", None, "d")}, NINE: {0: Label("e")}}
    write_labels(folder, labels)
    assert read_labels(folder) == labels
    write_labels(folder, {NINE: {1: Label("f")}})
    assert read_labels(folder) == {NINE: {1: Label("f")}}
    write_labels(folder, {})
    assert read_labels(folder) == {}


def test_a_changed_file_of_labels_is_named_and_not_used(caplog):
    write_labels(Path("first"), {EIGHT: {0: Label("right")}})
    file = Path("first/labels.json")
    file.write_text(file.read_text().replace("right", "wrong"))
    assert read_labels(Path("first")) == {}
    assert "labels.json" in caplog.text
