"""Intervals are checked against a known truth: how often they cover it in a thousand made-up held-out texts."""

import numpy as np
import pytest
from scipy import stats

from sae_sweeps.evaluation.bootstrap import (
    Draws,
    Interval,
    Trained,
    average,
    compare,
    count_effective,
    draw_metrics,
    expand_tail,
    resample,
)
from sae_sweeps.evaluation.unit_sums import UnitSums

TEXTS = 1000  # made-up held-out texts
RESAMPLES = 2000
TRUE = 0.01  # difference of two SAEs
SIZES = (
    0.5,
    1.0,
    1.4,
)  # spread of the logarithm of the documents' sizes: from half to double, up to 60 times the median


def make_texts(rng, documents, spread, true=TRUE):
    """Sizes of documents (U, TEXTS), and two SAEs' sums of errors, whose means differ by `true`.

    Documents differ in how hard they are for both SAEs, and in how much they favour one.
    """
    shape = (documents, TEXTS)
    size = np.ceil(rng.lognormal(4, spread, shape))
    hard, favour = rng.lognormal(-0.08, 0.4, shape), rng.normal(0, 0.02, shape)
    noise = rng.normal(0, 0.2, (2, *shape)) / np.sqrt(size)
    second = 0.3 * hard + noise[0]
    first = second + true * hard + favour + noise[1]
    return size, size * first, size * second


def find_intervals(size, part, weight_RU):
    """The interval of part / size of each text, (TEXTS,) low and high, as `Draws` finds it from given weights."""
    draws = (weight_RU @ part) / (weight_RU @ size)
    texts = range(size.shape[1])
    found = [Draws(0.0, draws[:, at], count_effective(size[:, at])).find_interval() for at in texts]
    return np.array([one.low for one in found]), np.array([one.high for one in found])


@pytest.mark.parametrize("spread", SIZES)
@pytest.mark.parametrize("documents", [60, 300])
def test_a_paired_interval_covers_the_difference_in_19_of_20_texts(documents, spread):
    size, first, second = make_texts(np.random.default_rng(1), documents, spread)
    weight_RU = resample(np.eye(documents), RESAMPLES)
    low, high = find_intervals(size, first - second, weight_RU)
    assert 0.93 <= ((low <= TRUE) & (high >= TRUE)).mean() <= 0.97


@pytest.mark.parametrize("documents", [20, 60, 300])
def test_equal_saes_are_hardly_ever_found_to_differ(documents):
    size, first, second = make_texts(np.random.default_rng(2), documents, 1.0, true=0)
    low, high = find_intervals(size, first - second, resample(np.eye(documents), RESAMPLES))
    assert ((low > 0) | (high < 0)).mean() <= 0.07


def test_pairing_makes_the_interval_narrow():
    size, first, second = make_texts(np.random.default_rng(3), 60, 0.5)
    sums = [
        UnitSums("document", "text", {"activations": size[:, 0], "error": part[:, 0], "predictions": size[:, 0]})
        for part in (first, second)
    ]
    one, two = (found["nmse"] for found in draw_metrics(sums))
    assert one.value == pytest.approx(first[:, 0].sum() / size[:, 0].sum())
    paired, apart = one - two, one.find_interval().high - one.find_interval().low
    assert paired.value == pytest.approx(one.value - two.value)
    assert paired.find_interval().high - paired.find_interval().low < apart / 3


def test_resampling_draws_units_with_replacement_and_is_the_same_again():
    weight_RU = resample(np.eye(7), 5000)
    assert set(weight_RU.sum(1)) == {7}
    assert weight_RU.mean(0) == pytest.approx(np.ones(7), abs=0.05)
    assert weight_RU.var(0) == pytest.approx(np.full(7, 6 / 7), abs=0.06)  # of a multinomial
    columns = np.random.default_rng(4).normal(size=(7, 3))
    assert resample(columns, 5000) == pytest.approx(weight_RU @ columns)
    assert (resample(columns, 10) == resample(columns, 10)).all()
    assert (resample(columns, 10, seed=1) != resample(columns, 10)).all()


def test_blocks_of_resamples_are_those_of_one_block(monkeypatch):
    columns = np.random.default_rng(4).normal(size=(7, 3))
    whole = resample(columns, 50)
    monkeypatch.setattr("sae_sweeps.evaluation.bootstrap.DRAWN_AT_ONCE", 70)
    assert resample(columns, 50) == pytest.approx(whole)


def test_the_tail_of_many_units_is_a_fortieth_and_of_few_that_of_student():
    assert expand_tail(10**7) == pytest.approx(0.025, abs=1e-5)
    reach = np.sqrt(10 / 9) * stats.t.ppf(0.975, 9)
    assert expand_tail(10) == pytest.approx(stats.norm.cdf(-reach))
    assert count_effective(np.full(12, 3.0)) == pytest.approx(12)
    assert count_effective(np.array([10.0, 0, 0])) == 1


def test_a_text_of_one_unit_has_no_interval():
    one = np.ones(1)
    assert draw_metrics([UnitSums("sequence", "", {"activations": one, "error": one})]) == [{}]


def make_kinds(rng, seeds, spread, true=0.0):
    """Two kinds of SAEs with `seeds` seeds each, of which each moves the metric by a random effect, on one text."""
    size, first, second = make_texts(rng, 60, 0.5, true)
    return size, [[part + size * rng.normal(0, spread, TEXTS) for _ in range(seeds)] for part in (first, second)]


def compare_kinds(size, kinds, at, weight_RU, data_seeds=False):
    def draw(part):
        draws_R = (weight_RU @ part[:, at]) / (weight_RU @ size[:, at])
        return Draws(part[:, at].sum() / size[:, at].sum(), draws_R, count_effective(size[:, at]))

    order = (lambda number: (0, number)) if data_seeds else lambda number: (number, 0)
    return compare(*([Trained(*order(number), draw(part)) for number, part in enumerate(kind)] for kind in kinds))


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.001, 0.02])
def test_seeds_of_one_kind_are_hardly_ever_found_to_be_two_kinds(seeds, spread):
    """Text and seeds differ; without the seeds' spread, most texts would show a difference."""
    size, kinds = make_kinds(np.random.default_rng(5), seeds, spread)
    weight_RU = resample(np.eye(60), 300)
    clear = [compare_kinds(size, kinds, at, weight_RU).interval.is_clear for at in range(TEXTS)]
    assert np.mean(clear) <= 0.07
    if spread == 0.02:
        single = [[kind[0]] for kind in kinds]
        naive = [compare_kinds(size, single, at, weight_RU).interval.is_clear for at in range(TEXTS)]
        assert np.mean(naive) > 0.5, "of single SAEs the claim is true, but not of their kinds"


def test_a_difference_of_kinds_is_found_if_it_is_large_beside_the_seeds():
    size, kinds = make_kinds(np.random.default_rng(6), 3, 0.005, true=0.05)
    weight_RU = resample(np.eye(60), 300)
    found = [compare_kinds(size, kinds, at, weight_RU, data_seeds=True) for at in range(100)]
    assert np.mean([one.interval.low > 0 for one in found]) > 0.95
    assert {one[2:] for one in found} == {(1, 3)}


def test_one_seed_on_one_side_is_a_claim_on_the_trained_saes():
    def one(seed, value):
        return Trained(seed, 0, Draws(value, np.full(100, value), 50.0))

    found = compare([one(0, 1.0), one(1, 3.0)], [one(0, 0.5)])
    assert found == (Interval(1.5, 1.5, 1.5), Interval(1.5, 1.5, 1.5), 1, 1)
    several = compare([one(0, 1.0), one(1, 3.0)], [one(0, 0.5), one(1, 0.5)])
    assert several.seeds == 2
    reach = stats.t.ppf(0.975, 1) * np.sqrt(2 / 2)
    assert several.interval == pytest.approx((1.5, 1.5 - reach, 1.5 + reach))
    assert several.trained == (1.5, 1.5, 1.5)


def test_crossed_seeds_are_counted_by_their_kind():
    """Four SAEs with two initialisations and two orders of the data are no four draws of either."""
    effects = {(seed, data): 1.0 * seed for seed in (0, 1) for data in (0, 1)}
    kind = [Trained(*at, Draws(value, np.full(100, value), 50.0)) for at, value in effects.items()]
    still = [Trained(*at, Draws(0.0, np.zeros(100), 50.0)) for at in effects]
    found = compare(kind, still)
    assert (found.seeds, found.data_seeds) == (2, 2)
    reach = stats.t.ppf(0.975, 1) * np.sqrt(0.5 / 2)
    assert found.interval.high - found.interval.value == pytest.approx(reach)
    assert average([one.draws for one in kind]).value == 0.5
