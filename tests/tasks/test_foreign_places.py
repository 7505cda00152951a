"""Where an SAE of another library was trained: checked, assumed with a line, or centred before and after."""

import json

import pytest
import torch

from sae_sweeps.activations.source import load_source
from sae_sweeps.formats.reading import load_sae
from tests.conftest import GIVEN, composed
from tests.tasks.conftest import done
from tests.tasks.foreign import foreign, saved

ELSEWHERE = ["name=elsewhere", "evaluation.tokens=150", *[word for word in GIVEN if not word.startswith("name=")]]


def change(folder, **settings):
    """Change settings in cfg.json and in its metadata."""
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"] |= settings
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def evaluated(tmp_path, model_settings, command):
    """Return a function that evaluates an SAE, and returns what was printed and the results."""

    def run(folder, *words):
        ran = command("task=evaluate", *ELSEWHERE, *model_settings, f"sae={folder}", *words)
        assert (ran.code, ran.err) == (0, "")
        (study,) = done(tmp_path / "outputs" / "elsewhere", "evaluate")
        return " ".join(ran.out.split()), results(study)

    return run


def test_a_place_that_no_file_names_is_assumed_with_a_line(tmp_path, tiny_model, evaluated):
    out, _ = evaluated(saved("sparsify", tmp_path / "my_sae", foreign("topk"), None).rename(tmp_path / "other_sae"))
    assert "its files name no model and no hook; the command's are assumed to be the SAE's: model.name=" in out
    assert f"{tiny_model}" in out


def test_a_declared_place_is_not_remarked_on(tmp_path, tiny_model, evaluated):
    out, _ = evaluated(saved("sae_lens", tmp_path / "mine", foreign("topk"), str(tiny_model)))
    assert "assumed" not in out


@pytest.mark.parametrize("hook", ["transformer.h.0.mlp.act", "model.layers.0.self_attn.o_proj", "blocks.0.attn.hook_z"])
def test_a_declared_place_that_is_no_hook_here_is_refused(tmp_path, tiny_model, model_settings, command, hook):
    folder = saved("sae_lens", tmp_path / "mine", foreign("topk"), str(tiny_model), hook)
    ran = command("task=evaluate", *ELSEWHERE, *model_settings, f"sae={folder}")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: saved={folder}: was trained at {hook}, which is not supported. Fix: name an SAE")


def test_a_centred_sae_is_measured_on_centred_activations(tmp_path, tiny_model, model_settings, evaluated):
    folder = change(
        saved("sae_lens", tmp_path / "mine", foreign("relu"), str(tiny_model)),
        model_from_pretrained_kwargs={"center_writing_weights": True},
    )
    source = load_source(composed(*model_settings, "device=cpu"), torch.device("cpu"))
    assert source.model.has_layer_norm
    x_AD, sae = source.held_out(150).acts_AD, load_sae(folder)
    sae.normalization = "none"
    mean_A1 = x_AD.mean(1, keepdim=True)
    error_AD = x_AD - mean_A1 - sae(x_AD - mean_A1)
    nmse = (error_AD.square().sum(1) / (x_AD - mean_A1).square().sum(1)).mean().item()
    out, found = evaluated(folder)
    assert found["metrics"]["nmse"] == pytest.approx(nmse, rel=1e-4)
    assert "it was trained on a centred residual stream (center_writing_weights)" in out


def test_the_bos_of_the_training_is_used_unless_the_command_sets_it(tmp_path, tiny_model, evaluated):
    folder = saved("sae_lens", tmp_path / "mine", foreign("relu"), str(tiny_model))
    change(folder, prepend_bos=False)
    out, found = evaluated(folder)
    assert found["config"]["dataset"]["prepend_bos"] is False
    assert "prepend_bos" not in out


def test_a_bos_that_the_command_sets_is_used_with_a_remark(tmp_path, tiny_model, evaluated):
    folder = saved("sae_lens", tmp_path / "mine", foreign("relu"), str(tiny_model))
    change(folder, prepend_bos=False)
    out, found = evaluated(folder, "dataset.prepend_bos=true")
    assert found["config"]["dataset"]["prepend_bos"] is True
    assert "it was trained with prepend_bos=False, unlike dataset.prepend_bos here" in out


def test_an_nmse_of_one_or_more_draws_a_remark(tmp_path, tiny_model, evaluated, command):
    sae = foreign("relu")
    sae.b_dec.data += 50
    out, found = evaluated(saved("sae_lens", tmp_path / "mine", sae, str(tiny_model)))
    remark = "worse than the mean of each activation's entries"
    assert found["metrics"]["nmse"] > 1
    assert remark in out
    assert command("task=report", "name=elsewhere", "tracking=off").code == 0
    page = (tmp_path / "outputs" / "elsewhere" / "report.html").read_text()
    assert "worse than the mean of each activation" in page.partition('id="evaluated"')[2].partition("</table>")[0]
