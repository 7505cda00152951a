"""Changed latents and meta-latents: against dense decoding, and planted truths."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.studies.steering import Edits, change_latents, change_meta_latents, steer
from tests.studies.random_saes import ARCHITECTURES, D, activations, random_sae, seen_by

WORDS = ["Tokyo", "Paris", "the", "of"]  # the vocabulary of `Linear`; its unembedding has a direction per word


class Linear:
    """A language model whose logits are the activation times the unembedding: what a direction does is known."""

    class tokenizer:  # noqa: N801
        @staticmethod
        def decode(ids):
            return WORDS[ids[0]]

    def __init__(self, x_SD, unembedding_VD):
        self.x_SD, self.unembedding_VD = x_SD, unembedding_VD

    def predict_next(self, tokens_S, replace=None):
        x_SD = self.x_SD if replace is None else replace(self.x_SD)
        return (x_SD[-1] @ self.unembedding_VD.T).log_softmax(0)


def build(clamp=(), add=(), remove=()):
    return Edits.build(dict(clamp), dict(add), list(remove))


def planted(normalization="none"):
    """Return an SAE with the latents 0 to D - 1 along the axes, active above 0.1."""
    axes_DD = torch.eye(D)
    options = {"b_dec": torch.zeros(D), "threshold": torch.full((D,), 0.1), "centers_input": False}
    return InferenceSAE("jumprelu", W_enc=axes_DD, W_dec=axes_DD, normalization=normalization, **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("normalize_input", [True, False])
def test_the_activation_moves_by_what_the_decoder_makes_of_the_change(architecture, normalize_input):
    sae, x_SD = random_sae(architecture, 90, 1, normalize_input), activations(20)
    edits = build({3: 2.5}, {7: -1.0, 8: 0.5}, [11, 12])
    changed_SD, before_SJ = change_latents(sae, x_SD, edits)
    z_SF = sae.encode(x_SD)
    assert_close(before_SJ, z_SF[:, [3, 7, 8, 11, 12]])
    other_SF = z_SF.clone()
    other_SF[:, 3] = 2.5
    other_SF[:, 7] -= 1.0
    other_SF[:, 8] += 0.5
    other_SF[:, [11, 12]] = 0
    assert_close(changed_SD - x_SD, sae.decode(other_SF, x_SD) - sae.decode(z_SF, x_SD), rtol=1e-9, atol=1e-9)


def test_a_latent_that_is_removed_where_it_is_not_active_changes_nothing():
    sae, x_SD = planted(), torch.zeros(3, D)
    changed_SD, before_SJ = change_latents(sae, x_SD, build(remove=[5]))
    assert torch.equal(changed_SD, x_SD)
    assert before_SJ.tolist() == [[0.0]] * 3


def test_removing_a_direction_changes_the_logit_of_one_word_by_a_known_amount():
    x_SD = torch.zeros(2, D)
    x_SD[-1, 4], x_SD[-1, 9] = 3.0, 1.0
    unembedding_VD = torch.zeros(len(WORDS), D)
    unembedding_VD[0, 4], unembedding_VD[1, 9] = 2.0, 1.0  # axis 4 is Tokyo, axis 9 Paris
    model, sae = Linear(x_SD, unembedding_VD), planted()
    ids = {"Tokyo": 0, "Paris": 1}

    def change(x):
        return change_latents(sae, x, build(remove=[4]))

    found = steer(model, torch.zeros(2, dtype=torch.int64), "p", ids, change, torch.tensor([True, True]), 2)
    tokyo, paris = found.words["Tokyo"], found.words["Paris"]
    # logits 6 and 1 before, 0 and 1 after; the others have 0
    before, after = torch.tensor([6.0, 1, 0, 0]).log_softmax(0), torch.tensor([0.0, 1, 0, 0]).log_softmax(0)
    assert_close(torch.tensor([tokyo.before, paris.before]), before[:2])
    assert_close(torch.tensor([tokyo.after, paris.after]), after[:2])
    assert (tokyo.change - paris.change) == pytest.approx(-6.0, abs=1e-5)
    assert found.kl == pytest.approx((before.exp() * (before - after)).sum().item(), rel=1e-5)
    assert [one.token for one in found.lowered] == ["Tokyo"]
    assert found.raised[0].token == "Paris"
    assert found.most_J == [3.0]


def test_only_the_chosen_positions_change():
    sae, x_SD = planted(), torch.ones(3, D)
    seen = []
    model = Linear(x_SD, torch.ones(len(WORDS), D))
    model.predict_next = lambda tokens_S, replace=None: (
        seen.append(replace(x_SD)) if replace else None,
        torch.zeros(4).log_softmax(0),
    )[1]

    def change(x):
        return change_latents(sae, x, build({2: 5.0}))

    steer(model, torch.zeros(3, dtype=torch.int64), "p", {}, change, torch.tensor([False, True, False]), 1)
    (changed_SD,) = seen
    assert changed_SD[:, 2].tolist() == [1.0, 5.0, 1.0]
    assert torch.equal(changed_SD[[0, 2]], x_SD[[0, 2]])


@pytest.mark.parametrize("normalization", ["none", "layer_norm"])
def test_a_meta_latent_is_taken_out_of_the_directions_that_have_it(normalization):
    """Latent 0 is twice the sum of the meta-latents 0 and 1, with weights 0.6 and 0.8; latent 1 is meta-latent 2."""
    meta = planted()
    W_dec = torch.zeros(2, D)
    W_dec[0, 0], W_dec[0, 1], W_dec[1, 2] = 1.2, 1.6, 1.0
    W_enc = torch.nn.functional.normalize(W_dec, dim=1)
    options = {"b_dec": torch.zeros(D), "threshold": torch.full((2,), 0.1), "centers_input": False}
    sae = InferenceSAE("jumprelu", W_enc=W_enc, W_dec=W_dec, normalization=normalization, **options)
    x_SD = activations(6).float()
    x_SD[:, :3] += 8  # so that both latents are active
    z_SF, scale_S1 = sae.encode(x_SD), 1.0
    if normalization == "layer_norm":
        scale_S1 = x_SD.std(1, keepdim=True) + 1e-5
    changed_SD, weights_AJ = change_meta_latents(sae, meta, x_SD, build(remove=[1]))
    expected_SD = torch.zeros(6, D)
    expected_SD[:, 1] = -z_SF[:, 0] * 1.6  # 0.8 of a direction of norm 2
    assert_close(changed_SD - x_SD, expected_SD * scale_S1, rtol=1e-4, atol=1e-5)
    assert_close(weights_AJ.max(), torch.tensor(0.8))
    replaced_SD, _ = change_meta_latents(sae, meta, x_SD, build({5: 0.8}, remove=[1]), of=[0])
    assert_close((replaced_SD - changed_SD)[:, 5], (z_SF[:, :1] * 1.6 * scale_S1)[:, 0], rtol=1e-4, atol=1e-5)
    untouched_SD, weights_AJ = change_meta_latents(sae, meta, x_SD, build(remove=[1]), of=[1])
    assert_close(untouched_SD, x_SD, rtol=0, atol=0)  # meta-latent 1 is not in the direction of latent 1


def test_a_latent_named_twice_is_refused():
    with pytest.raises(ConfigError, match="changed twice"):
        build({3: 1.0}, remove=[3])


def test_seen_by_is_the_normalisation_that_the_test_assumes():
    x_SD = activations(4)
    assert_close(random_sae("topk", 40, 0).normalize(x_SD).x_BD, seen_by(random_sae("topk", 40, 0), x_SD))
