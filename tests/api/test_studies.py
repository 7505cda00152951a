"""Studies in a notebook: equal settings give the same metrics and meta-SAEs as the command."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sae_sweeps import MetaSAE, TopKSAE, evaluate, load_sae, stitch
from sae_sweeps.runtime.errors import ConfigError
from tests.tasks.conftest import done, point


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("batches", [False, True])
def test_stitching_equals_the_commands_study(swept, stream, batches):
    (study,) = done(swept, "stitch", "batchtopk")
    expected = results(study)
    pair_of = [load_sae(point(swept, f"batchtopk-{size}") / "sae") for size in (32, 48)]
    acts_AD = stream.held_out(150).acts_AD
    pair = stitch(*pair_of, iter(acts_AD.split(40)) if batches else acts_AD)
    for name, value in pair.metrics.items():
        assert value == pytest.approx(expected["metrics"][name], rel=1e-5), name
    assert pair.curves["interpolation"].nmse == pytest.approx(expected["curves"]["interpolation"]["nmse"], rel=1e-5)


def test_saes_that_do_not_fit_are_not_stitched():
    small, large, x_AD = TopKSAE(16, 32, k=4), TopKSAE(16, 48, k=4), torch.randn(10, 16)
    for arguments, change, problem in (
        ((small, TopKSAE(8, 48, k=4), x_AD), {}, "d_in=16: the small SAE has this d_in, but the large SAE has d_in=8"),
        (
            (small, TopKSAE(16, 48, k=4, normalize_input=False), x_AD),
            {},
            "normalization=layer_norm: the small SAE has this normalization, but the large SAE has normalization=none",
        ),
        (
            (small, large, x_AD[:, :8]),
            {},
            "activations=(10, 8): the shape must be (any number, 16), where 16 is d_in of both SAEs",
        ),
        ((small, large, x_AD[:0]), {}, "activations=0: there must be at least one activation"),
        ((small, large, []), {}, "activations=0: there must be at least one activation"),
        ((small, large, x_AD), {"threshold": 2.0}, "stitch.threshold=2.0: must be a cosine"),
    ):
        with pytest.raises(ConfigError) as refused:
            stitch(*arguments, **change)
        assert problem in str(refused.value)


@pytest.fixture(scope="module")
def decomposed(swept):
    """Return a study of the command, its metrics, its SAE, and the same decomposition by the library."""
    (study,) = done(swept, "meta_sae", "batchtopk")
    latents = torch.tensor(json.loads((study / "decomposed.json").read_text())["latents"])
    sae = load_sae(point(swept, "batchtopk-48") / "sae")
    steps, settings = [], {"latents": latents, "steps": 60, "batch_size": 16}
    meta = MetaSAE.train(sae, **settings, on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 60) for done in range(1, 61)]
    return study, results(study)["metrics"], sae, meta


def test_a_meta_sae_equals_the_commands(decomposed, stream):
    study, expected, sae, meta = decomposed
    assert torch.equal(meta.sae.W_dec, load_file(study / "sae" / "sae_weights.safetensors")["W_dec"])
    assert meta.explained_variance == expected["explained_variance"]
    assert meta.control().explained_variance == expected["explained_variance_shuffled"]
    after = evaluate(meta.replace_directions(sae), stream.model, stream.held_out(150))
    assert (after["nmse"], after["ce_degradation"]) == (expected["nmse_after"], expected["ce_degradation_after"])


def test_meta_latents_and_latents_are_found_in_one_weight_matrix(decomposed):
    *_, sae, meta = decomposed
    weights_AM = meta.weights.to_dense()
    directions_AD = torch.nn.functional.normalize(sae.W_dec[meta.latents_A], dim=1)
    assert torch.equal(meta.directions_AD, directions_AD)
    recon_AD = weights_AM @ meta.sae.W_dec + meta.sae.b_dec
    torch.testing.assert_close(meta.reconstructed_AD, recon_AD)
    left_A = (directions_AD - recon_AD).square().sum(1) / (directions_AD - directions_AD.mean(0)).square().sum(1)
    torch.testing.assert_close(meta.explained_A, 1 - left_A)
    for row, latent in enumerate(meta.latents_A.tolist()):
        parts = meta.find_meta_latents(latent)
        assert parts == sorted(parts, key=lambda part: -part[1])
        assert dict(parts) == {at: weights_AM[row, at].item() for at in weights_AM[row].nonzero().flatten().tolist()}
    column_A = weights_AM[:, 0]
    order = column_A.argsort(descending=True)[: int((column_A > 0).sum())][:3].tolist()
    assert meta.find_latents(0, most=3) == [(int(meta.latents_A[row]), column_A[row].item()) for row in order]


def test_directions_alone_can_be_decomposed_and_unusable_settings_are_refused(decomposed):
    *_, sae, meta = decomposed
    again = MetaSAE.train(3 * sae.W_dec, latents=meta.latents_A, steps=60, batch_size=16)
    assert again.explained_variance == pytest.approx(meta.explained_variance, rel=1e-3)
    left_out = next(latent for latent in range(49) if latent not in meta.latents_A.tolist())
    with pytest.raises(
        KeyError, match=f"latent {left_out} was not decomposed; `latents_A` lists all decomposed latents"
    ):
        meta.find_meta_latents(left_out)
    with pytest.raises(
        ConfigError, match=r"meta\.dict_size=100: .* between 1 and 48, the number of decoder directions"
    ):
        MetaSAE.train(sae, dict_size=100)
    with pytest.raises(ConfigError, match=r"meta\.k=5: must be at most meta.dict_size=4"):
        MetaSAE.train(sae, dict_size=4, k=5)
