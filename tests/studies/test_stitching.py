"""Stitching, checked against SAEs with each latent really inserted, and against dense reconstructions."""

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.saes import JumpReLUSAE, TopKSAE
from sae_sweeps.studies import stitching
from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.paths import insert_by_value, insert_in_order, interpolate
from sae_sweeps.studies.stitching import (
    PathReconstructions,
    Stitching,
    compute_rates,
    count_families,
    measure_prediction,
)
from tests.reference import nmse
from tests.studies.test_paths import (
    ACTIVE,
    ARCHITECTURES,
    LARGE,
    SMALL,
    activations,
    dense_activations,
    dense_reconstruction,
    families_of,
    random_path,
    random_sae,
    seen_by,
)

A, THRESHOLD = 150, 0.6
PAIRS = [(small, large) for small in ARCHITECTURES for large in ARCHITECTURES]
CASES = pytest.mark.parametrize(
    ("architectures", "normalize_input"), [(pair, on) for pair in PAIRS for on in (True, False)]
)


def random_pair(architectures, normalize_input=True):
    small, large = architectures
    return random_sae(small, SMALL, 1, normalize_input), random_sae(large, LARGE, 2, normalize_input)


def stitched(small, large, x_AD, paths=(), batches=(64, 1, 85)):
    """Return the measurements of one pass over the activations, in batches of several sizes."""
    found = Stitching(small, large, paths)
    for x_BD in x_AD.split(batches):
        found.update(x_BD)
    assert found.seen == len(x_AD)
    return found


def mean_square(error_AD):
    return error_AD.square().sum(1).mean().item()


@torch.no_grad()
def squares_with_each_latent(small, large, x_AD):
    """Return the small SAE's mean |x - x_hat|^2 in normalised space with each latent of the large SAE inserted."""
    seen_AD, z_AL = seen_by(small, x_AD), dense_activations(large, x_AD)
    start_AD = dense_activations(small, x_AD) @ small.W_dec + small.b_dec
    return [
        mean_square(seen_AD - (start_AD + z_AL[:, latent, None] * direction_D))
        for latent, direction_D in enumerate(large.W_dec)
    ]


@torch.no_grad()
def with_latent(small, large, latent):
    """Return the small SAE with one more latent."""
    extended = JumpReLUSAE(small.d_in, small.dict_size + 1, 0.1, normalize_input=small.normalization != "none").double()
    for name in ("W_enc", "W_dec", "b_enc", "threshold"):
        one = large.get_parameter(name)[latent : latent + 1]
        extended.get_parameter(name).copy_(torch.cat([small.get_parameter(name), one]))
    extended.b_dec.copy_(small.b_dec)
    return extended


def square_of_forward(sae, x_AD):
    """Return the mean |x - x_hat|^2 in normalised space, from the SAE's output for raw activations."""
    normalized = sae.normalize(x_AD)
    return mean_square(normalized.x_BD - (sae(x_AD) - normalized.mean_B1) / normalized.std_B1)


def paths_between(small, large, positions=6):
    """Return an interpolation, a random insertion, an insertion by cosine, and a random path."""
    compared = compare(small.W_dec.detach(), large.W_dec.detach(), [THRESHOLD])
    cosine_L = compared.right.cosine
    novel = (cosine_L < THRESHOLD).nonzero().squeeze(1)
    assert 10 < len(novel) < LARGE - 10, "both kinds of latents"
    way, _ = interpolate(novel, compared.families[THRESHOLD], SMALL, LARGE, positions)
    order = torch.randperm(LARGE, generator=torch.Generator().manual_seed(0))
    by_cosine = insert_by_value(cosine_L, [0.5, 0.6, 0.7], SMALL)
    return [way, insert_in_order(order, SMALL, LARGE, positions), by_cosine, random_path()]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_random_saes_encode_as_the_dense_reference(architecture):
    x_AD = activations(400)
    for size in (SMALL, LARGE):
        sae = random_sae(architecture, size, size)
        z_AF = dense_activations(sae, x_AD)
        assert_close(sae.encode(x_AD), z_AF, rtol=1e-12, atol=1e-12)
        assert (z_AF > 0).sum(1).double().mean().item() == pytest.approx(ACTIVE, abs=1)


@CASES
def test_mse_changes_match_inserting_each_latent(architectures, normalize_input):
    small, large = random_pair(architectures, normalize_input)
    x_AD = activations(A)
    found = stitched(small, large, x_AD)
    before = mean_square(seen_by(small, x_AD) - dense_reconstruction(random_path(), 0, small, large, x_AD))
    changes = [after - before for after in squares_with_each_latent(small, large, x_AD)]
    assert found.mse == pytest.approx(before, rel=1e-12)
    assert found.change_L.tolist() == pytest.approx(changes, rel=1e-6)
    assert min(changes) < 0 < max(changes)
    for sae, fired_F in ((small, found.fired_S), (large, found.fired_L)):
        assert torch.equal(fired_F, (dense_activations(sae, x_AD) > 0).sum(0))


@pytest.mark.parametrize("normalize_input", [True, False])
def test_mse_changes_match_an_sae_with_one_more_latent(normalize_input):
    small, large = random_pair(("jumprelu", "jumprelu"), normalize_input)
    x_AD = activations(A)
    found = stitched(small, large, x_AD)
    before = square_of_forward(small, x_AD)
    changes = [square_of_forward(with_latent(small, large, latent), x_AD) - before for latent in range(LARGE)]
    assert found.change_L.tolist() == pytest.approx(changes, rel=1e-6)


def test_latents_that_are_never_active_change_nothing():
    small, large = random_pair(("jumprelu", "jumprelu"))
    with torch.no_grad():
        large.threshold[::2] = 1e6
    found = stitched(small, large, activations(A))
    assert (found.fired_L[::2] == 0).all()
    assert (found.change_L[::2] == 0).all()
    assert (found.change_L[1::2] != 0).any()


def test_zeros_kept_by_topk_are_not_active():
    small, large = random_pair(("topk", "topk"))
    small.k, large.k = SMALL - 4, LARGE - 10
    x_AD, path = activations(A), random_path()
    found = stitched(small, large, x_AD, [path])
    assert found.change_L.tolist() == pytest.approx(
        [after - found.mse for after in squares_with_each_latent(small, large, x_AD)], rel=1e-6
    )
    assert torch.equal(found.fired_L, (dense_activations(large, x_AD) > 0).sum(0))
    assert found.compute_curves()[0].l0[0] == pytest.approx((dense_activations(small, x_AD) > 0).sum().item() / A)


@CASES
def test_curves_match_dense_reconstructions_at_every_position(architectures, normalize_input, monkeypatch):
    monkeypatch.setattr(stitching, "CHANGES_AT_ONCE", 2000)  # about 20 activations at a time
    small, large = random_pair(architectures, normalize_input)
    x_AD = activations(A)
    paths = paths_between(small, large)
    normalized = small.normalize(x_AD)
    fired_AS, fired_AL = (dense_activations(sae, x_AD) > 0 for sae in (small, large))
    spread_A = (x_AD - x_AD.mean(1, keepdim=True)).square().sum(1)
    for path, curve in zip(paths, stitched(small, large, x_AD, paths).compute_curves(), strict=True):
        expected = []
        for position in range(path.length + 1):
            restored_AD = normalized.restore(dense_reconstruction(path, position, small, large, x_AD))
            expected.append(((x_AD - restored_AD).square().sum(1) / spread_A).mean().item())
        assert curve.nmse == pytest.approx(expected, rel=1e-9)
        active = [
            (fired_AS & (path.removed_at > position)).sum() + (fired_AL & (path.inserted_at <= position)).sum()
            for position in range(path.length + 1)
        ]
        assert curve.l0 == pytest.approx([count.item() / A for count in active], rel=1e-12)
        assert curve.latents == path.latent_count.tolist()


@CASES
def test_an_interpolation_starts_and_ends_at_the_two_saes(architectures, normalize_input):
    saes = random_pair(architectures, normalize_input)
    x_AD = activations(A)
    way = paths_between(*saes)[0]
    curve = stitched(*saes, x_AD, [way]).compute_curves()[0]
    walk = PathReconstructions(way, *saes, x_AD)
    for sae, end in zip(saes, (0, -1), strict=True):
        assert curve.nmse[end] == pytest.approx(nmse(sae, x_AD), rel=1e-9)
        assert curve.l0[end] == pytest.approx((sae.encode(x_AD) > 0).sum().item() / A, rel=1e-12)
        assert curve.latents[end] == sae.dict_size
        assert_close(walk.reconstruct(end % (way.length + 1)), sae(x_AD), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("changes", [1, 5000, 2**23])
@pytest.mark.parametrize("batches", [(A,), (1,) * A, (100, 50)])
def test_neither_batches_nor_how_many_are_followed_at_a_time_change_what_is_found(batches, changes, monkeypatch):
    small, large = random_pair(("batchtopk", "jumprelu"))
    x_AD, paths = activations(A), [random_path(), random_path(1, length=9)]
    expected = stitched(small, large, x_AD, paths)
    monkeypatch.setattr(stitching, "CHANGES_AT_ONCE", changes)
    found = stitched(small, large, x_AD, paths, batches)
    assert_close(found.change_L, expected.change_L, rtol=1e-10, atol=1e-12)
    assert torch.equal(found.fired_L, expected.fired_L)
    for curve, other in zip(found.compute_curves(), expected.compute_curves(), strict=True):
        assert curve.nmse == pytest.approx(other.nmse, rel=1e-10)
        assert curve.l0 == other.l0


@pytest.mark.parametrize("normalize_input", [True, False])
def test_a_walk_gives_raw_activations_at_every_position(normalize_input, monkeypatch):
    monkeypatch.setattr(stitching, "BATCH", 40)
    small, large = random_pair(("topk", "batchtopk"), normalize_input)
    x_AD, path = activations(A), random_path()
    walk, normalized = PathReconstructions(path, small, large, x_AD), small.normalize(x_AD)
    for position in (3, 0, path.length):
        expected_AD = normalized.restore(dense_reconstruction(path, position, small, large, x_AD))
        assert_close(walk.reconstruct(position), expected_AD, rtol=1e-10, atol=1e-10)


def test_float32_saes_give_the_same_measurements():
    """The sums over activations are in float64 even so."""
    small, large = random_pair(("jumprelu", "jumprelu"))
    x_AD, path = activations(A), random_path()
    exact = stitched(small, large, x_AD, [path])
    found = stitched(small.float(), large.float(), x_AD.float(), [path])
    assert found.change_L.dtype == torch.float64
    assert_close(found.change_L, exact.change_L, rtol=1e-4, atol=1e-5)
    assert found.compute_curves()[0].nmse == pytest.approx(exact.compute_curves()[0].nmse, rel=1e-5)


def test_saes_of_other_width_or_normalization_are_refused():
    with pytest.raises(ValueError, match="the two SAEs must have the same d_in and the same normalization"):
        Stitching(TopKSAE(8, 20, 3), TopKSAE(8, 40, 3, normalize_input=False), [])
    with pytest.raises(ValueError, match="the two SAEs must have the same d_in and the same normalization"):
        Stitching(TopKSAE(8, 20, 3), TopKSAE(9, 40, 3), [])


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
            sae = JumpReLUSAE(self.WIDTH, size, 0.1, **options).double()
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
