"""SAEBench's core metrics compared with their definitions, written out on dense matrices in float64."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.evaluation import saebench_weights
from sae_sweeps.evaluation.saebench import CoreSettings, find_ignored, measure_core
from sae_sweeps.evaluation.saebench_weights import find_largest_cosines, measure_weights, summarise_latents
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.saes.sparse import RowSparse
from tests.activations.test_language_model import load

SIZE, BATCHES, D, F = 3, 4, 16, 40


@pytest.fixture(scope="module")
def model(tiny_model) -> LanguageModel:
    return load(tiny_model, "blocks.1.hook_resid_pre")


@pytest.fixture(scope="module")
def tokens_NS(model) -> Tensor:
    """Sequences that start with BOS, with the same token in the middle of some, and in one nothing else."""
    tokens = torch.randint(1, 300, (SIZE * BATCHES, 12), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = tokens[::2, 7] = tokens[-1] = model.bos
    return tokens


def make_sae(kind: str, seed: int = 0) -> InferenceSAE:
    """An SAE with random weights, some of whose latents are never active."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    W_dec = torch.nn.functional.normalize(draw(F, D), dim=1)
    weights = {"W_enc": W_dec + 0.1 * draw(F, D), "W_dec": W_dec, "b_enc": 0.1 * draw(F) - 0.2, "b_dec": 0.1 * draw(D)}
    weights["b_enc"][:3] = -1e3
    more = {
        "topk": {"k": 5},
        "jumprelu": {"threshold": draw(F).abs()},
        "normalised": {"threshold": torch.full((F,), 0.4), "normalization": "layer_norm"},
        "gated": {"threshold": torch.zeros(F), "gain": draw(F).exp(), "shift": 0.2 * draw(F) + 0.2},
    }[kind]
    architecture = "jumprelu" if kind == "normalised" else kind
    return InferenceSAE(architecture, **weights, **more, centers_input=True)


KINDS = ("topk", "jumprelu", "normalised", "gated")


def refer(model: LanguageModel, sae: InferenceSAE, tokens_NS: Tensor, settings: CoreSettings) -> tuple[dict, dict]:
    """Return the metrics and the latents' metrics as sae-bench's code defines them, one batch after another."""
    lists = {name: [] for name in ("in", "out", "ratio", "bias", "l0", "l1", "legacy", "mse", "cos", "square", "error")}
    kl, ce = {"sae": [], "zero": []}, {"sae": [], "zero": [], "none": []}
    acts_F, prompts_F, count = torch.zeros(F), torch.zeros(F), 0
    for number, batch in enumerate(tokens_NS.split(settings.batch_sequences)):
        counts = batch != model.bos
        x = model.activations(batch).double()
        z = sae.encode(x.float()).double()
        recon = sae.decode(z.float(), x.float()).double()
        if number < settings.reconstruction_batches:
            replaced = torch.where(counts[..., None], recon, x) if settings.exclude_special_tokens else recon
            logits = {"none": model.logits(batch)}
            for name, new in (("sae", replaced), ("zero", torch.zeros_like(x))):
                logits[name] = model.logits(batch, lambda acts, new=new: new.float())
            log_p = {name: one.double().log_softmax(-1) for name, one in logits.items()}
            for name, found in kl.items():
                found.append((log_p["none"].exp() * (log_p["none"] - log_p[name])).sum(-1)[counts])
            for name, found in ce.items():
                nll = -log_p[name][:, :-1].gather(-1, batch[:, 1:, None]).squeeze(-1)
                found.append(nll[counts[:, :-1]])
        active = (z * counts[..., None]) > 0
        acts_F += active.sum((0, 1))
        prompts_F += active.any(1).sum(0)
        count += int(counts.sum())
        x, z, recon = x[counts], z[counts], recon[counts]
        error = (x - recon).pow(2).sum(-1)
        lists["in"].append(x.norm(dim=-1))
        lists["out"].append(recon.norm(dim=-1))
        lists["ratio"].append(recon.norm(dim=-1) / x.norm(dim=-1))
        lists["bias"].append((recon.norm(dim=-1) ** 2).mean() / (x * recon).sum(-1).mean())
        lists["l0"].append((z != 0).sum(-1).double())
        lists["l1"].append(z.sum(-1))
        lists["legacy"].append(1 - error / (x - x.mean(0)).pow(2).sum(-1))
        lists["mse"].append(error / counts.sum())
        lists["cos"].append(torch.nn.functional.cosine_similarity(x, recon, dim=-1))
        lists["square"].append(x.pow(2))
        lists["error"].append(error)
    mean = {name: torch.cat(values).mean().item() for name, values in lists.items() if name not in ("bias", "square")}
    squares = torch.stack([square.sum(-1).mean() for square in lists["square"]]).mean()
    per_entry = torch.cat([square.mean(0) for square in lists["square"]]).mean()
    residual = torch.stack([error.mean() for error in lists["error"]]).mean()
    kls = {name: torch.cat(values).mean().item() for name, values in kl.items()}
    ces = {name: torch.cat(values).mean().item() for name, values in ce.items()}
    metrics = {
        "kl_div_score": (kls["zero"] - kls["sae"]) / kls["zero"],
        "kl_div_with_ablation": kls["zero"],
        "kl_div_with_sae": kls["sae"],
        "ce_loss_score": (ces["zero"] - ces["sae"]) / (ces["zero"] - ces["none"]),
        "ce_loss_with_ablation": ces["zero"],
        "ce_loss_with_sae": ces["sae"],
        "ce_loss_without_sae": ces["none"],
        "l2_norm_in": mean["in"],
        "l2_norm_out": mean["out"],
        "l2_ratio": mean["ratio"],
        "relative_reconstruction_bias": torch.stack(lists["bias"]).mean().item(),
        "l0": mean["l0"],
        "l1": mean["l1"],
        "explained_variance": (1 - residual / (squares - per_entry**2)).item(),
        "explained_variance_legacy": mean["legacy"],
        "mse": mean["mse"],
        "cossim": mean["cos"],
    }
    heuristic_F = [active / prompts if prompts else math.nan for active, prompts in zip(acts_F, prompts_F, strict=True)]
    return metrics, {"feature_density": acts_F / count, "consistent_activation_heuristic": torch.tensor(heuristic_F)}


@pytest.mark.parametrize("excludes", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_is_as_defined(model, tokens_NS, kind, excludes):
    settings, sae = CoreSettings(2, BATCHES, SIZE, excludes), make_sae(kind)
    found = measure_core(model, {"one": sae}, tokens_NS, settings)["one"]
    metrics, latents = refer(model, sae, tokens_NS, settings)
    assert {name: found.metrics[name] for name in metrics} == pytest.approx(metrics, rel=1e-5, abs=1e-7)
    for name, expected_F in latents.items():
        torch.testing.assert_close(torch.tensor(found.latents[name]), expected_F.float(), equal_nan=True)
    assert math.isnan(found.latents["consistent_activation_heuristic"][0])
    assert found.metrics["frac_alive"] <= 1 - 3 / F
    assert max(found.latents["consistent_activation_heuristic"][3:]) > 1


def test_nmse_and_fvu_beside_them_are_this_projects(model, tokens_NS):
    sae, settings = make_sae("jumprelu"), CoreSettings(1, BATCHES, SIZE, True)
    metrics = measure_core(model, {"one": sae}, tokens_NS, settings)["one"].metrics
    x_AD = model.activations(tokens_NS)[tokens_NS != model.bos].double()
    error_A = (x_AD - sae(x_AD.float())).square().sum(1)
    assert metrics["nmse"] == pytest.approx((error_A / (x_AD - x_AD.mean(1, keepdim=True)).square().sum(1)).mean())
    assert metrics["fvu"] == pytest.approx((error_A.sum() / (x_AD - x_AD.mean(0)).square().sum()).item())
    assert abs(1 - metrics["fvu"] - metrics["explained_variance"]) > 0.01
    assert metrics["mse"] < metrics["l2_norm_in"] ** 2 / 10  # it is divided twice by the number of activations


def test_all_saes_share_the_plain_pass_and_the_ablated_one(model, tokens_NS, monkeypatch):
    calls = []
    logits = LanguageModel.logits
    monkeypatch.setattr(LanguageModel, "logits", lambda *given, **more: calls.append(more) or logits(*given, **more))
    settings = CoreSettings(2, BATCHES, SIZE, True)
    saes = {kind: make_sae(kind) for kind in KINDS}
    together = measure_core(model, saes, tokens_NS, settings)
    assert len(calls) == 2 * (2 + len(KINDS))
    assert sum(call.get("from_hook", False) for call in calls) == 2 * (1 + len(KINDS))
    for kind, sae in saes.items():
        alone = measure_core(model, {kind: sae}, tokens_NS, settings)[kind]
        assert alone.metrics == together[kind].metrics


def test_neither_the_parts_of_a_batch_nor_the_way_of_the_pass_changes_a_metric(model, tokens_NS, monkeypatch):
    sae, settings = make_sae("gated"), CoreSettings(2, BATCHES, SIZE, False)
    whole = measure_core(model, {"one": sae}, tokens_NS, settings)["one"]
    monkeypatch.setattr(LanguageModel, "logits_at_once", 12)  # a sequence at a time
    monkeypatch.setattr("sae_sweeps.evaluation.saebench.starts_at_hook", lambda *given: False)
    parts = measure_core(model, {"one": sae}, tokens_NS, settings)["one"]
    assert parts.metrics == pytest.approx(whole.metrics, rel=1e-5)
    assert parts.latents["feature_density"] == whole.latents["feature_density"]


def test_no_dense_matrix_of_positions_and_latents_is_made(model, tokens_NS, monkeypatch):
    def refuse(*_):
        raise AssertionError("a dense matrix")

    monkeypatch.setattr(RowSparse, "to_dense", refuse)
    saes = {kind: make_sae(kind) for kind in KINDS}
    measure_core(model, saes, tokens_NS, CoreSettings(1, 2, SIZE, True))


def test_an_sae_that_copies_and_one_that_gives_zeros(model, tokens_NS):
    eye = torch.eye(D)
    both = torch.cat([eye, -eye])
    copies = InferenceSAE("relu", W_enc=both, W_dec=both, b_dec=torch.zeros(D), threshold=torch.zeros(2 * D),
                          centers_input=False)  # fmt: skip
    gives = InferenceSAE("relu", W_enc=both, W_dec=0 * both, b_dec=torch.zeros(D), threshold=torch.zeros(2 * D),
                         centers_input=False)  # fmt: skip
    found = measure_core(model, {"copies": copies, "zeros": gives}, tokens_NS, CoreSettings(2, 2, SIZE, False))
    metrics = found["copies"].metrics
    ones = ("kl_div_score", "ce_loss_score", "explained_variance", "explained_variance_legacy", "cossim", "l2_ratio")
    assert [metrics[name] for name in ones] == pytest.approx([1] * len(ones), abs=1e-4)
    assert metrics["l0"] == D
    metrics = found["zeros"].metrics
    assert [metrics[name] for name in ("kl_div_score", "ce_loss_score")] == pytest.approx([0, 0], abs=1e-6)
    assert metrics["l2_ratio"] == 0
    assert metrics["cossim"] is None
    assert metrics["relative_reconstruction_bias"] is None


@pytest.mark.parametrize("entries", [1, 100, 2**25])
def test_largest_cosines_are_those_of_all_pairs(monkeypatch, entries):
    monkeypatch.setattr(saebench_weights, "TILE_ENTRIES", entries)
    W_FD = torch.randn(17, 5, generator=torch.Generator().manual_seed(1))
    W_FD[4] = 0
    expected_FF = torch.nn.functional.cosine_similarity(W_FD[:, None], W_FD[None], dim=-1)
    expected_FF.fill_diagonal_(-torch.inf)
    torch.testing.assert_close(find_largest_cosines(W_FD), expected_FF.amax(1))


def test_weights_of_a_gated_sae_are_those_of_its_magnitudes():
    sae = make_sae("gated")
    found = measure_weights(sae)
    b_mag_F = sae.shift + sae.gain * sae.b_enc
    assert found["encoder_bias"] == pytest.approx(b_mag_F.tolist())
    assert measure_weights(make_sae("topk"))["encoder_bias"] == pytest.approx(make_sae("topk").b_enc.tolist())
    assert found["encoder_norm"] == pytest.approx(sae.W_enc.norm(dim=1).tolist())
    cosine_F = torch.nn.functional.cosine_similarity(sae.W_enc, sae.W_dec)
    assert found["encoder_decoder_cosine_sim"] == pytest.approx(cosine_F.tolist(), rel=1e-5)


def test_frequent_latents_are_counted_by_their_density():
    latents = {"feature_density": [0.0, 0.005, 0.01, 0.05, 0.2]}
    latents |= {f"max_{side}_cosine_sim": [0.0, 0.5, 0.5, 0.5, 1.0] for side in ("encoder", "decoder")}
    found = summarise_latents(latents)
    assert found["frac_alive"] == pytest.approx(0.8)
    assert found["freq_over_1_percent"] == pytest.approx(0.4)
    assert found["freq_over_10_percent"] == pytest.approx(0.2)
    assert found["normalized_freq_over_1_percent"] == pytest.approx(0.25 / 0.265)
    assert found["normalized_freq_over_10_percent"] == pytest.approx(0.2 / 0.265)
    assert found["average_max_decoder_cosine_sim"] == pytest.approx(0.5)
    nothing = {**latents, "feature_density": [0.0] * 5}
    assert summarise_latents(nothing)["normalized_freq_over_1_percent"] == 0


def test_a_short_text_gives_whole_batches_or_a_small_one():
    asked = CoreSettings(200, 2000, 16, True)
    assert asked.sequences == 32_000
    assert asked.fit(40_000) == asked
    assert asked.fit(50) == CoreSettings(3, 3, 16, True)
    assert asked.fit(5) == CoreSettings(1, 1, 5, True)


def test_bos_end_of_text_and_padding_do_not_count():
    def ignored(bos, eos, pad):
        return find_ignored(SimpleNamespace(bos=bos, eos=eos, tokenizer=SimpleNamespace(pad_token_id=pad)))

    assert ignored(0, 0, None) == {0}
    assert ignored(1, 2, 3) == {1, 2, 3}
    assert ignored(None, None, None) == set()
