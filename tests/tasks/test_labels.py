"""Labels of latents: commands check and keep them, and export them to Neuronpedia."""

import json
from pathlib import Path

from sae_sweeps.formats.neuronpedia.reading import check_source, read_rows
from sae_sweeps.sweep.labels import Label, read_labels
from tests.tasks.conftest import contents, point, undo
from tests.tasks.foreign import foreign, saved
from tests.tasks.test_neuronpedia import TITLE, WORDS, sources


def test_labels_are_kept_and_exported(first, command):
    line = {"sae": TITLE, "latent": 5, "text": "<i>one</i>", "score": 0.25, "source": "Jane"}
    Path("labels.jsonl").write_text(json.dumps(line) + "\n")
    assert command(*WORDS, "latents.labels=labels.jsonl").code == 0
    folder = next(one for one in sources(first) if one.name.endswith(f"__{TITLE}"))
    (found,) = read_rows(folder, "explanations")
    assert (found["index"], found["description"], found["notes"]) == ("5", "<i>one</i>", "source: Jane; score: 0.25")
    assert sum(check_source(one)["explanations"] for one in sources(first)) == 1
    Path("labels.jsonl").unlink()
    assert command(*WORDS).code == 0  # they are kept with the sweep
    assert check_source(folder)["explanations"] == 1


def test_a_bad_label_is_refused_and_the_earlier_ones_stay(first, command):
    Path("labels.jsonl").write_text(json.dumps({"sae": TITLE, "latent": 5, "text": "one"}) + "\n")
    assert command("task=report", "name=first", "latents.labels=labels.jsonl").code == 0
    name = point(first, TITLE).name
    for task in (["task=report", "name=first"], ["task=latents", "name=first"], WORDS):
        Path("labels.jsonl").write_text(json.dumps({"sae": TITLE, "latent": 48, "text": "one"}) + "\n")
        ran = command(*task, "latents.labels=labels.jsonl")
        assert ran.code == 1
        problem = f"latents.labels=labels.jsonl: line 1: {name} has no latent 48. Fix: name one from 0 to 47"
        assert ran.err == f"error: {problem}\n"
    assert read_labels(first) == {name: {5: Label("one")}}
    assert not (first / "export").exists()


def test_labels_do_not_describe_latents_again(first, command):
    before = contents(first / "latents")
    Path("labels.jsonl").write_text(json.dumps({"sae": TITLE, "latent": 5, "text": "one"}) + "\n")
    ran = command("task=latents", "name=first", "latents.labels=labels.jsonl", *described_with(first))
    assert (ran.code, ran.err) == (0, "")
    assert contents(first / "latents") == before
    assert read_labels(first) == {point(first, TITLE).name: {5: Label("one")}}


def described_with(sweep: Path) -> list[str]:
    """Return the settings with which the studies of a sweep described its latents."""
    settings = json.loads(next(sweep.glob("latents/*/results.json")).read_text())["study"]["settings"]
    return [f"latents.{name}={value}" for name, value in settings.items()]


def test_labels_are_only_for_tasks_that_use_them(first, command):
    ran = command("task=evaluate", "name=first", "latents.labels=labels.jsonl")
    assert ran.code == 1
    assert "can be used only with task=latents or task=report or task=export" in ran.err


def test_an_sae_of_another_library_is_exported_and_labelled(tmp_path, command, tiny_model, tiny):
    folder = saved("sae_lens", tmp_path / "of-others", foreign("relu"), str(tiny_model))
    text = [word for word in tiny if word.startswith(("model", "dataset", "tracking", "device", "evaluation"))]
    ran = command("task=latents", f"sae={folder}", "name=others", "latents.tokens=200", *text)
    assert ran.code == 0, ran.err
    Path("labels.jsonl").write_text(json.dumps({"sae": "relu-40-of-others", "latent": 39, "text": "last"}) + "\n")
    words = [*WORDS[2:], "name=others", "latents.labels=labels.jsonl", "neuronpedia.vectors=[39]"]
    ran = command("task=export", f"sae={folder}", *words)
    assert (ran.code, ran.err) == (0, "")
    (written,) = sources(Path("outputs/others"))
    counts = check_source(written)
    assert (counts["features"], counts["explanations"], counts["vectors"]) == (40, 1, 1)
    (vector,) = read_rows(written, "vectors")
    assert vector["vectorLabel"].endswith("39: last")
    undo(Path("outputs/others"), "latents")
    ran = command("task=export", f"sae={folder}", *words)
    assert f"task=latents name=others sae={folder}" in ran.err
