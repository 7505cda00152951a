"""Task `evaluate` and the studies, on a sweep's points and on SAEs from other libraries."""

import csv
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from sae_sweeps.activations.source import load_source
from sae_sweeps.formats import saelens
from sae_sweeps.formats.reading import load_sae
from tests.conftest import GIVEN, composed
from tests.tasks.conftest import done, point
from tests.tasks.foreign import foreign, saved

ELSEWHERE = ["name=elsewhere", "evaluation.tokens=150", *[word for word in GIVEN if not word.startswith("name=")]]


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


def rows(file) -> list[dict[str, str]]:
    with open(file) as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def acts_AD(model_settings):
    """Return the activations that all SAEs are evaluated on."""
    config = composed(*model_settings, "device=cpu")
    return load_source(config, torch.device("cpu")).held_out(150).acts_AD


def dense_metrics(sae, x_AD) -> dict[str, float]:
    """Return the metrics by their definitions, from dense matrices."""
    acts_AF = ((x_AD - sae.b_dec) @ sae.W_enc.T + sae.b_enc).relu() * sae.encode(x_AD).gt(0)
    error_AD = x_AD - (acts_AF @ sae.W_dec + sae.b_dec)
    spread_A = (x_AD - x_AD.mean(1, keepdim=True)).square().sum(1)
    return {
        "nmse": (error_AD.square().sum(1) / spread_A).mean().item(),
        "fvu": (error_AD.square().sum() / (x_AD - x_AD.mean(0)).square().sum()).item(),
        "l0": (acts_AF > 0).sum().item() / len(x_AD),
        "dead_fraction": (acts_AF == 0).all(0).float().mean().item(),
        "held_out_tokens": len(x_AD),
    }


def test_evaluate_reproduces_the_metrics_of_a_sweeps_points(first, command):
    ran = command("task=evaluate", *GIVEN)
    assert (ran.code, ran.err) == (0, "")
    found = done(first, "evaluate")
    assert len(found) == 4
    for folder in found:
        again = results(folder)
        assert again["metrics"] == results(first / again["study"]["sae"]["point"])["metrics"]
    table = {row["sae"]: float(row["nmse"]) for row in rows(first / "evaluate.csv")}
    assert table == {name: results(first / name)["metrics"]["nmse"] for name in table}
    assert len(table) == 4
    for title in ("batchtopk-32-k4-seed0", "topk-48-k4-seed0"):
        nmse = results(point(first, title))["metrics"]["nmse"]
        (line,) = [line for line in ran.out.splitlines() if f" {title} " in line and f"{nmse:.4f}" in line]
        assert "│" in line or "|" in line
    best = min(results(folder)["metrics"]["nmse"] for folder in found)
    assert f"{best:.4f}*" in ran.out


def test_points_with_the_same_title_are_all_in_the_table(first, command):
    mine = point(first, "topk-32")
    other = shutil.copytree(mine, mine.with_name(f"{mine.name[:-8]}0123abcd"))
    sweep = json.loads((first / "sweep.json").read_text())
    sweep["points"][other.name] = sweep["points"][mine.name]
    (first / "sweep.json").write_text(json.dumps(sweep))
    ran = command("task=evaluate", *GIVEN)
    assert ran.code == 0
    assert mine.name in ran.out
    assert other.name in ran.out


FORMATS = [
    ("sae_lens", "relu"),
    ("sae_lens", "jumprelu"),
    ("dictionary_learning", "batchtopk"),
    ("sparsify", "topk"),
]


def test_metrics_of_saes_from_other_libraries_match_their_definitions(
    tmp_path, tiny_model, model_settings, command, acts_AD
):
    folders = [
        saved(format, tmp_path / f"of-{format}-{architecture}" / "layers.0", foreign(architecture), str(tiny_model))
        for format, architecture in FORMATS
    ]
    given = ",".join(f"{format}:{folder}" for (format, _), folder in zip(FORMATS, folders, strict=True))
    ran = command("-m", "task=evaluate", *ELSEWHERE, *model_settings, f"saved={given}")
    assert (ran.code, ran.err) == (0, "")
    sweep = tmp_path / "outputs" / "elsewhere"
    found = {result["study"]["sae"]["folder"]: result for result in map(results, done(sweep, "evaluate"))}
    assert set(found) == set(map(str, folders))
    for (format, architecture), folder in zip(FORMATS, folders, strict=True):
        result = found[str(folder)]
        described = result["study"]["sae"]
        assert (described["format"], described["architecture"], described["dict_size"]) == (format, architecture, 40)
        expected = dense_metrics(load_sae(folder), acts_AD)
        metrics = result["metrics"]
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
        assert metrics["ce_reconstruction"] - metrics["ce_model"] == pytest.approx(metrics["ce_degradation"])
        assert metrics["ce_degradation"] > 0
    assert result["study"]["sae"]["k"] == 5
    assert len(rows(sweep / "evaluate.csv")) == 4
    assert command("task=report", "name=elsewhere", "tracking=off").code == 0
    assert (sweep / "report.html").is_file()


def test_an_sae_that_cannot_be_read_does_not_stop_the_others(tmp_path, tiny_model, model_settings, command):
    folders = {}
    for number, name in enumerate(("first", "broken", "last")):
        folders[name] = saved("sae_lens", tmp_path / name, foreign("relu", seed=number), str(tiny_model))
    file = folders["broken"] / "sae_weights.safetensors"
    whole = file.read_bytes()
    save_file({**load_file(file), "b_dec": torch.full((16,), torch.nan)}, file)  # found when the weights are loaded
    words = ["-m", "task=evaluate", *ELSEWHERE, *model_settings, f"sae={','.join(map(str, folders.values()))}"]
    ran = command(*words)
    assert ran.code == 1
    (line,) = ran.err.splitlines()
    assert f"saved={folders['broken']}: cannot be read as sae_lens (b_dec must hold only finite numbers" in line
    assert "Fix: name the folder of a trained SAE" in line
    sweep = tmp_path / "outputs" / "elsewhere"
    assert [row["sae"] for row in rows(sweep / "evaluate.csv")] == ["relu-40-first", "relu-40-last"]

    file.write_bytes(whole[:-9])  # found before anything runs
    ran = command(*words)
    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert f"saved={folders['broken']}: cannot be read as sae_lens (sae_weights.safetensors is damaged, cut" in line
    assert "Fix: download or copy it again" in line


@pytest.mark.parametrize("format", ["sae_lens", "dictionary_learning", "sparsify"])
def test_an_sae_of_another_hook_model_or_width_is_refused(tmp_path, tiny_model, model_settings, command, format):
    folder = saved(format, tmp_path / "saes" / "layers.0", foreign("topk"), str(tiny_model))
    given = ["task=evaluate", *ELSEWHERE, f"saved={folder}"]
    ran = command(*given, *model_settings, "model.hook=blocks.1.hook_mlp_out")
    problem = f"error: saved={folder}: was trained at blocks.0.hook_resid_post, but the command uses"
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"{problem} blocks.1.hook_mlp_out. Fix: model.hook=blocks.0.hook_resid_post")
    ran = command(*given, "model.hook=blocks.0.hook_resid_post")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: saved={folder}: was trained on {tiny_model}, but the command uses ")
    ran = command(*given, "model.hook=blocks.0.hook_resid_post", f"model.aliases=[{tiny_model}]")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: saved={folder}: takes activations of width 16, but the activations of ")
    assert len(ran.err.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


def test_saes_from_other_libraries_are_stitched(tmp_path, tiny_model, model_settings, command, acts_AD):
    small = saved("sae_lens", tmp_path / "small", foreign("relu", 24), str(tiny_model))
    large = saved("dictionary_learning", tmp_path / "large", foreign("batchtopk", 40, seed=1), str(tiny_model))
    words = [f"small={small}", f"large=dictionary_learning:{large}"]
    ran = command("task=stitch", *ELSEWHERE, *model_settings, *words)
    assert (ran.code, ran.err) == (0, "")
    (folder,) = done(tmp_path / "outputs" / "elsewhere", "stitch")
    found = results(folder)
    for part, path in (("small", small), ("large", large)):
        expected = dense_metrics(load_sae(path), acts_AD)
        assert found["metrics"][f"nmse_{part}"] == pytest.approx(expected["nmse"], rel=1e-4)
        assert found["metrics"][f"l0_{part}"] == pytest.approx(expected["l0"], rel=1e-4)
    assert found["study"]["small"]["k"] is None


@pytest.fixture
def relu(tmp_path, tiny_model) -> Path:
    """Return the folder of an SAE whose decoder rows have different norms."""
    return saved("sae_lens", tmp_path / "relu", foreign("relu"), str(tiny_model))


def test_replaced_directions_of_a_foreign_sae_keep_their_norms(tmp_path, relu, model_settings, command, acts_AD):
    ran = command("task=meta_sae", *ELSEWHERE, *model_settings, f"sae={relu}")
    assert (ran.code, ran.err) == (0, "")
    (folder,) = done(tmp_path / "outputs" / "elsewhere", "meta_sae")
    metrics, sae, meta = results(folder)["metrics"], load_sae(relu), saelens.read(folder / "sae")
    assert metrics["nmse_before"] == pytest.approx(dense_metrics(sae, acts_AD)["nmse"], rel=1e-4)
    latents = json.loads((folder / "decomposed.json").read_text())["latents"]
    norm_A1 = sae.W_dec[latents].norm(dim=1, keepdim=True)
    assert norm_A1.max() > 2 * norm_A1.min()
    sae.W_dec[latents] = meta(normalize(sae.W_dec[latents], dim=1)) * norm_A1
    assert metrics["nmse_after"] == pytest.approx(dense_metrics(sae, acts_AD)["nmse"], rel=1e-4)


def test_latents_of_a_foreign_sae_get_a_table_and_a_report(tmp_path, relu, model_settings, command):
    ran = command("task=latents", *ELSEWHERE, *model_settings, f"sae={relu}")
    assert (ran.code, ran.err) == (0, "")
    (folder,) = done(tmp_path / "outputs" / "elsewhere", "latents")
    assert len(pq.read_table(folder / "latents.parquet")) == 40
    assert results(folder)["study"]["sae"]["k"] is None
    ran = command("task=report", "name=elsewhere", "tracking=off")
    assert (ran.code, ran.err) == (0, "")
    page = (tmp_path / "outputs" / "elsewhere" / "report.html").read_text()
    assert "relu-40-relu" in page


def test_what_the_command_line_says_of_the_text_holds_for_points_too(first, command):
    mine = point(first, "batchtopk-32")
    ran = command("-m", "task=evaluate", *GIVEN, f"sae={mine}", "evaluation.tokens=70", "dataset.seq_len=8,11")
    assert (ran.code, ran.err) == (0, "")
    found = [results(folder) for folder in done(first, "evaluate")]
    own_config = results(mine)["config"]
    for seq_len in (8, 11):
        (metrics,) = [each["metrics"] for each in found if each["config"]["dataset"]["seq_len"] == seq_len]
        assert 70 <= metrics["held_out_tokens"] < 70 + seq_len
    for each in found:
        assert each["config"]["dataset"] == {**own_config["dataset"], "seq_len": each["config"]["dataset"]["seq_len"]}
        assert each["config"]["sae"] == own_config["sae"]
    section = (first / "report.html").read_text().partition('id="evaluated"')[2].partition("</section>")[0]
    for each in found:
        header = f"({mine.name}, dataset.seq_len {each['config']['dataset']['seq_len']})</th>"
        assert f"{each['metrics']['held_out_tokens']}</td>" in section.partition(header)[2].partition("</tr>")[0]


def test_another_model_or_hook_than_the_points_is_refused(first, command, tiny_model):
    other = shutil.copytree(tiny_model, first.parent / "other-model")
    hook = "blocks.1.hook_resid_pre"
    for setting, value, its, more in (
        ("model.hook", "blocks.0.hook_resid_pre", hook, []),
        ("model.name", str(other), str(tiny_model), [f"model.hook={hook}", "dataset.seq_len=16"]),
    ):
        for task in ("evaluate", "latents", "stitch"):
            ran = command(f"task={task}", *GIVEN, f"{setting}={value}", *more)
            assert ran.code == 1
            (line,) = ran.err.splitlines()
            assert line.startswith(f"error: {setting}={value}: ")
            fix = f"leave {setting} out; an SAE uses its own model and hook"
            assert f"-k4-seed0 was trained with {setting}={its}. Fix: {fix}" in line


def test_evaluating_on_documents_of_the_training_text_is_refused(first, command):
    mine = point(first, "topk-32")
    every = results(mine)["config"]["dataset"]["holdout_every"]
    ran = command("task=evaluate", *GIVEN, f"sae={mine}", f"dataset.holdout_every={every - 1}")
    problem = "with this value, topk-32-k4-seed0 would be evaluated on documents that it was trained on"
    fix = f"set dataset.holdout_every to {every} or a multiple of {every}"
    assert (ran.code, ran.err) == (1, f"error: dataset.holdout_every={every - 1}: {problem}. Fix: {fix}\n")
    assert command("task=evaluate", *GIVEN, f"sae={mine}", f"dataset.holdout_every={2 * every}").code == 0


def test_the_table_has_a_column_per_text_setting_that_differs(first, command):
    words = ["task=evaluate", *GIVEN, f"sae={point(first, 'topk-32')}"]
    assert command("-m", *words, "dataset.seq_len=8,11").code == 0
    table = rows(first / "evaluate.csv")
    assert sorted(row["dataset.seq_len"] for row in table) == ["11", "8"]
    assert "dataset.seed" not in table[0]


def test_an_sae_with_a_changed_configuration_is_another_study(tmp_path, tiny_model, model_settings, command):
    folder = saved("sae_lens", tmp_path / "mine", foreign("relu"), str(tiny_model))
    words = ["task=evaluate", *ELSEWHERE, *model_settings, f"sae={folder}"]
    assert command(*words).code == 0
    cfg = json.loads((folder / "cfg.json").read_text())
    cfg["apply_b_dec_to_input"] = not cfg["apply_b_dec_to_input"]
    (folder / "cfg.json").write_text(json.dumps(cfg))
    assert command(*words).code == 0
    found = done(tmp_path / "outputs" / "elsewhere", "evaluate")
    assert len({results(each)["metrics"]["nmse"] for each in found}) == 2


def test_a_k_above_dict_size_is_refused_with_the_folder(tmp_path, tiny_model, model_settings, command):
    folder = saved("sae_lens", tmp_path / "mine", foreign("topk"), str(tiny_model))
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | {"k": 41}))
    ran = command("task=evaluate", *ELSEWHERE, *model_settings, f"saved={folder}")
    line = f"error: saved={folder}: declares k=41, but has only 40 latents. Fix: correct its configuration file\n"
    assert (ran.code, ran.err) == (1, line)
