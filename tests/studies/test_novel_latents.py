"""Novel latents and families: predictions by cosine, counts, and planted ones that are found."""

import pytest
import torch

from sae_sweeps.saes import JumpReLUSAE, TopKSAE
from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.paths import interpolate
from sae_sweeps.studies.stitching import compute_rates, count_families, measure_prediction
from tests.studies.random_saes import families_of, stitched


def test_a_perfect_prediction_has_its_threshold_between_the_groups():
    cosine_L = torch.tensor([0.9, 0.1, 0.3, 0.8, 0.2])
    change_L = torch.tensor([1.0, -1.0, -2.0, 0.0, -0.1], dtype=torch.float64)
    found = measure_prediction(cosine_L, change_L, torch.ones(5))
    assert (found.latents, found.lowering) == (5, 3)
    assert found.auroc == 1.0
    assert 0.3 <= found.best_threshold + 1e-6 < 0.8
    best = found.thresholds.index(found.best_threshold)
    assert (found.true_positive_rate[best], found.false_positive_rate[best]) == (1.0, 0.0)
    assert (found.true_positive_rate[-1], found.false_positive_rate[-1]) == (1.0, 1.0)


def test_a_reversed_prediction_has_a_threshold_too():
    found = measure_prediction(torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.ones(4))
    assert found.auroc == 0.0
    assert found.best_threshold == pytest.approx(0.9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_auroc_if_all_latents_change_the_mse_in_one_direction(sign):
    found = measure_prediction(torch.rand(6), sign * (1 + torch.rand(6)), torch.tensor([1, 2, 0, 3, 4, 5]))
    assert (found.latents, found.lowering) == (5, 0 if sign > 0 else 5)
    assert found.auroc is None
    assert found.best_threshold is None
    assert found.thresholds == found.true_positive_rate == found.false_positive_rate == []


def test_latents_that_are_never_active_do_not_count():
    cosine_L = torch.tensor([0.1, 0.2, 0.8, 0.9, 0.05, 0.95])
    change_L = torch.tensor([-1.0, -1.0, 1.0, 1.0, 0.0, 0.0])
    fired_L = torch.tensor([1, 5, 2, 1, 0, 0])
    assert measure_prediction(cosine_L, change_L, fired_L) == measure_prediction(
        cosine_L[:4], change_L[:4], fired_L[:4]
    )
    assert compute_rates(cosine_L, change_L, fired_L, 0.5) == (1.0, 0.0)


def test_the_prediction_matches_all_pairs_and_all_thresholds():
    generator = torch.Generator().manual_seed(0)
    cosine_L = (torch.rand(200, generator=generator) * 50).round() / 50  # with ties
    change_L = cosine_L - 0.5 + 0.6 * torch.randn(200, generator=generator)
    fired_L = torch.randint(0, 3, (200,), generator=generator)
    found = measure_prediction(cosine_L, change_L, fired_L)
    alive = [latent for latent in range(200) if fired_L[latent] > 0]
    lowering = [cosine_L[latent].item() for latent in alive if change_L[latent] < 0]
    others = [cosine_L[latent].item() for latent in alive if change_L[latent] >= 0]
    won = sum((low < other) + (low == other) / 2 for low in lowering for other in others)
    assert (found.latents, found.lowering) == (len(alive), len(lowering))
    assert found.auroc == pytest.approx(won / (len(lowering) * len(others)))

    def rates_at(threshold):
        return [sum(cosine <= threshold for cosine in side) / len(side) for side in (lowering, others)]

    found_rates = zip(found.thresholds, found.true_positive_rate, found.false_positive_rate, strict=True)
    for threshold, true_rate, false_rate in found_rates:
        assert [true_rate, false_rate] == pytest.approx(rates_at(threshold))
    best = max(true_rate - false_rate for true_rate, false_rate in map(rates_at, lowering + others))
    true_rate, false_rate = rates_at(found.best_threshold)
    assert true_rate - false_rate == pytest.approx(best)


def test_rates_at_a_threshold():
    cosine_L = torch.tensor([0.1, 0.2, 0.6, 0.5, 0.4, 0.9, 0.95])
    change_L = torch.tensor([-1.0, -1.0, -1.0, -1.0, 1.0, 0.0, 2.0])
    fired_L = torch.ones(7)
    assert compute_rates(cosine_L, change_L, fired_L, 0.5) == (0.5, pytest.approx(1 / 3))
    assert compute_rates(cosine_L, -change_L.abs() - 1, fired_L, 0.5) == (pytest.approx(3 / 7), None)
    assert compute_rates(cosine_L, change_L.abs(), fired_L, 0.5) == (None, pytest.approx(3 / 7))


def test_families_are_counted_by_their_numbers_of_latents():
    families = families_of([({0, 1}, {0}), ({2}, {1}), ({3}, {2}), ({4}, {3, 4}), ({5}, {5})], small=8, large=9)
    assert count_families(families) == [
        {"small": 0, "large": 1, "count": 3},
        {"small": 1, "large": 0, "count": 2},
        {"small": 1, "large": 1, "count": 3},
        {"small": 1, "large": 2, "count": 1},
        {"small": 2, "large": 1, "count": 1},
    ]


class Planted:
    """Two SAEs with known latents, and data that are sums of the large SAE's directions.

    These are copies of directions of the small SAE, pairs that split one of its directions (cosine 0.8), and novel ones
    orthogonal to both. Each activation sums one of each kind. The small SAE's last latent is never active.
    """

    COPIES, SPLITS, NOVEL, WIDTH = 5, 4, 6, 24

    def __init__(self, architecture):
        generator = torch.Generator().manual_seed(0)
        self._generator = generator
        rotation_DD = torch.linalg.qr(torch.randn(self.WIDTH, self.WIDTH, dtype=torch.float64, generator=generator)).Q
        sizes = [self.COPIES, self.SPLITS, self.SPLITS, self.NOVEL, 1]
        copies, whole, across, novel, unused, _ = rotation_DD.split([*sizes, self.WIDTH - sum(sizes)])
        small_SD = torch.cat([copies, whole, unused])
        large_LD = torch.cat([copies, 0.8 * whole + 0.6 * across, 0.8 * whole - 0.6 * across, novel])
        order_S, order_L = (torch.randperm(len(rows), generator=generator) for rows in (small_SD, large_LD))
        self.small = self._tied(architecture, small_SD[order_S], k=2)
        self.large = self._tied(architecture, large_LD[order_L], k=3)
        self.truth_LD = large_LD
        place_S, place_L = order_S.argsort().tolist(), order_L.argsort().tolist()
        firsts, seconds = self.COPIES, self.COPIES + self.SPLITS
        self.novel = set(place_L[seconds + self.SPLITS :])
        self.families = [({place_S[number]}, {place_L[number]}) for number in range(self.COPIES)] + [
            ({place_S[firsts + number]}, {place_L[firsts + number], place_L[seconds + number]})
            for number in range(self.SPLITS)
        ]

    @torch.no_grad()
    def _tied(self, architecture, directions_FD, k):
        size, options = len(directions_FD), {"normalize_input": False}
        if architecture == "topk":
            sae = TopKSAE(self.WIDTH, size, k, **options).double()
        else:
            sae = JumpReLUSAE(self.WIDTH, size, sparsity_coefficient=0.1, **options).double()
            sae.threshold.fill_(0.7)  # the halves of a pair have a cosine of 0.28: one sees at most 0.56 of the other
        sae.W_enc.copy_(directions_FD)
        sae.W_dec.copy_(directions_FD)
        return sae

    def activations(self, count):
        kinds = torch.tensor([0, self.COPIES, self.COPIES + 2 * self.SPLITS, len(self.truth_LD)])
        drawn_A3 = torch.rand(count, 3, generator=self._generator)
        which_A3 = (kinds[:-1] + drawn_A3 * kinds.diff()).long()
        strength_A3 = 1 + torch.rand(count, 3, generator=self._generator, dtype=torch.float64)
        return (strength_A3[:, :, None] * self.truth_LD[which_A3]).sum(1)


@pytest.mark.parametrize("architecture", ["topk", "jumprelu"])
def test_planted_novel_latents_and_families_are_found(architecture):
    planted = Planted(architecture)
    small, large, x_AD = planted.small, planted.large, planted.activations(300)
    compared = compare(small.W_dec.detach(), large.W_dec.detach(), [0.7])
    cosine_L, families = compared.right.cosine, compared.families[0.7]
    novel = (cosine_L < 0.7).nonzero().squeeze(1)
    assert set(novel.tolist()) == planted.novel

    assert count_families(families) == [
        {"small": 0, "large": 1, "count": planted.NOVEL},
        {"small": 1, "large": 0, "count": 1},
        {"small": 1, "large": 1, "count": planted.COPIES},
        {"small": 1, "large": 2, "count": planted.SPLITS},
    ]
    for in_small, in_large in planted.families:
        labels = {families.left[latent] for latent in in_small} | {families.right[latent] for latent in in_large}
        assert len(labels) == 1

    way, novel_in = interpolate(novel, families, small.dict_size, large.dict_size, 20)
    assert novel_in == planted.NOVEL
    found = stitched(small, large, x_AD, [way], batches=(100, 200))
    predicted = measure_prediction(cosine_L, found.change_L, found.fired_L)
    assert predicted.auroc == 1.0
    assert predicted.best_threshold < 0.7
    assert (predicted.latents, predicted.lowering) == (large.dict_size, planted.NOVEL)
    curve = found.compute_curves()[0]
    assert all(after < before for before, after in zip(curve.nmse, curve.nmse[1 : novel_in + 1], strict=False))
    assert curve.nmse[0] > 0.2
    assert curve.nmse[-1] == pytest.approx(0, abs=1e-12)
    assert curve.l0[0] == 2
    assert curve.l0[novel_in] == curve.l0[-1] == 3
