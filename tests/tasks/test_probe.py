"""Task `probe` on a sweep: planted classes, shuffled ones, what is computed once, what a stopped command keeps."""

import csv
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load

from sae_sweeps.activations import language_model
from sae_sweeps.activations.last_tokens import encode_ends, read_last
from sae_sweeps.activations.source import load_source
from sae_sweeps.formats.reading import load_sae
from sae_sweeps.runtime import signals
from sae_sweeps.tasks import probe, probe_activations
from tests.conftest import GIVEN, WORDS, composed
from tests.tasks.conftest import contents, done, point, raise_at

KS = "probe.ks=[1,4]"
TEXTS = 300


def make_texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(TEXTS)]


def write_set(folder, name, texts, is_positive):
    folder.mkdir(exist_ok=True)
    with open(folder / f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([text, "yes" if one else "no"] for text, one in zip(texts, is_positive, strict=True))


@pytest.fixture
def planted(first, model_settings, tmp_path):
    """Data sets whose classes are whether a latent of `topk-32` is active, and the same classes shuffled."""
    source = load_source(composed(*model_settings, "device=cpu"), torch.device("cpu"))
    texts = make_texts()
    ends, _ = encode_ends(source.model, texts, source.model.bos, 1024)
    latents_TF = load_sae(point(first, "topk-32")).encode(read_last(source.model, ends, lambda done, total: None))
    is_active_TF = (latents_TF > 0).numpy()
    latent = int(np.abs(is_active_TF.mean(0) - 0.5).argmin())
    assert 58 <= is_active_TF[:, latent].sum() <= TEXTS - 58
    write_set(tmp_path / "own", "1_planted", texts, is_active_TF[:, latent])
    write_set(tmp_path / "own", "2_shuffled", texts, np.random.default_rng(1).permutation(is_active_TF[:, latent]))
    return latent


def read(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_planted_latent_is_found_and_texts_are_read_once(first, command, planted, monkeypatch):
    tokens, fits = [], []
    read_at, fit = language_model.LanguageModel.activations_at, probe_activations.fit
    monkeypatch.setattr(
        language_model.LanguageModel,
        "activations_at",
        lambda model, ids, *more: (tokens.append(len(ids)), read_at(model, ids, *more))[1],
    )
    monkeypatch.setattr(probe_activations, "fit", lambda *given: (fits.append(1), fit(*given))[1])
    ran = command("task=probe", "probe.data=own", KS, *GIVEN)
    assert (ran.code, ran.err) == (0, "")
    assert sum(tokens) == len(set(make_texts()))  # both data sets have the same texts
    assert len(fits) == 2  # on the activations
    folders = done(first, "probe")
    names = [f"{name}-k4-seed0" for name in ("batchtopk-32", "batchtopk-48", "topk-32", "topk-48")]
    assert [folder.name.rpartition("-")[0] for folder in folders] == names
    results = read(folders[2])
    _check_rows(results, planted)
    activations = [[row["activations"]["auc"] for row in read(folder)["sets"]] for folder in folders]
    assert activations == [activations[0]] * 4
    with open(first / "probe.csv") as file:
        assert [row["sets"] for row in csv.DictReader(file)] == ["2"] * 4
    _check_report(first, command)


def _check_rows(results, planted):
    found, shuffled = results["sets"]
    assert (found["name"], found["negative"], found["positive"], found["texts"]) == ("1_planted", "no", "yes", TEXTS)
    assert found["latents"][0] == planted
    assert found["ks"][0]["auc"] == found["ks"][0]["accuracy"] == found["ks"][0]["f1"] == 1
    assert 0.5 < found["activations"]["auc"] <= 1
    for one in (*shuffled["ks"], shuffled["activations"]):
        assert one["auc_low"] - 0.1 < 0.5 < one["auc_high"] + 0.1
    assert found["train"] + found["test"] < TEXTS
    metrics = results["metrics"]
    assert metrics["sets"] == 2
    assert metrics["auc_k1"] == pytest.approx((1 + shuffled["ks"][0]["auc"]) / 2)
    assert metrics["auc_k1_low"] <= metrics["auc_k1"] <= metrics["auc_k1_high"]
    difference = np.mean([row["ks"][1]["auc"] - row["activations"]["auc"] for row in results["sets"]])
    assert metrics["difference_k4"] == pytest.approx(difference)


def _check_report(first, command):
    assert command("task=report", *GIVEN).code == 0
    page = (first / "report.html").read_text()
    section = page[page.index('<section id="probed"') :]
    section = section[: section.index("</section>")]
    assert "AUC, k = 4" in section
    assert section.count("<td>best</td>") == 1
    assert "<details><summary>Each data set</summary>" in section
    assert section.count("1_planted") == 4


def test_a_stopped_command_keeps_the_data_sets_that_are_done(first, command, planted, monkeypatch):
    given = ("task=probe", "probe.data=own", KS, f"sae={point(first, 'topk-32')}", *GIVEN)
    assert command(*given).code == 0
    (folder,) = done(first, "probe")
    expected = read(folder)
    (folder / "results.json").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(signals, "raise_if_stopped", raise_at(2, KeyboardInterrupt))
        assert command(*given).code != 0
    assert (folder / "sets.json").is_file()
    assert not (folder / "results.json").exists()
    probed = []
    probe_set = probe._probe_set
    monkeypatch.setattr(probe, "_probe_set", lambda name, *given: (probed.append(name), probe_set(name, *given))[1])
    assert command(*given).code == 0
    assert probed == ["2_shuffled"]
    again = read(folder)
    assert (again["sets"], again["metrics"]) == (expected["sets"], expected["metrics"])
    assert not (folder / "sets.json").exists()
    before = contents(first / "probe")
    assert "already done" in command(*given).out
    assert contents(first / "probe") == before
    _check_damage(first, command)


def _check_damage(first, command):
    """Check that damaged activations are read again, and are the same."""
    (file,) = first.glob("probe/activations-*/1_planted.safetensors")
    tensors = load(content := file.read_bytes())
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    sae = f"sae={point(first, 'topk-32')}"
    ran = command("task=probe", "probe.data=own", "probe.ks=[2]", sae, *GIVEN)
    assert ran.code == 0
    assert "1_planted.safetensors is not used (its checksum does not match)" in ran.err + ran.out
    again = load(file.read_bytes())
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["probe.data=None: the data sets of sae-probes are not in", "sae_sweeps.cli.fetch_probes"]),
        (["probe.data=nowhere"], ["probe.data=nowhere: is no folder"]),
        (["probe.data=own", "probe.sets=[3_more]"], ["probe.sets=3_more: no such data set; 2 are there"]),
        (["probe.data=bad"], ["bad/a.csv: has 3 classes"]),
        (["probe.data=own", "probe.ks=[0]"], ["probe.ks=[0]", "from 1"]),
        (["probe.data=own", "probe.ks=[2,2]"], ["probe.ks=[2, 2]"]),
        (["probe.data=own", "probe.penalty=none"], ["probe.penalty", "must be one of l1, l2"]),
        (["probe.data=own", "probe.rows=50"], ["probe.rows=50: must be at least 116"]),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(first, command, words, parts, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("1_planted", "2_shuffled"):
        write_set(tmp_path / "own", name, make_texts(), np.arange(TEXTS) % 2 == 0)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.csv").write_text("text,label\na,1\nb,2\nc,3\n")
    ran = command("task=probe", *words, *GIVEN)
    assert ran.code == 1
    errors = [line for line in ran.err.splitlines() if "Fix: " in line]
    assert len(errors) == 1, ran.err
    assert all(part in errors[0] for part in parts), errors
    assert not (first / "probe").exists()


def test_a_probe_after_training_needs_its_data_before(command, tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ran = command(*tiny, "then=[probe]", "name=other", "tracking=off", "device=cpu")
    assert ran.code == 1
    assert "the data sets of sae-probes are not in" in ran.err
    assert not (tmp_path / "outputs" / "other").exists()
