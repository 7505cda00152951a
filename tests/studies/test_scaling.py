"""Scaling laws: planted laws are recovered and predict a larger size, and what points do not determine is left out."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import least_squares

from sae_sweeps.runtime.seeds import mix_seed
from sae_sweeps.studies.scaling import ScalingError, Trained, fit_law, hold_out

SIZES, K, TOKENS = (400, 800, 1600, 3200, 6400), 32, 1_000_000
NOISE = 0.003  # of the logarithm of the NMSE


def bend(dict_size: float, k: float = K, tokens: float = TOKENS) -> float:
    """Return 0.4 (F / 1000)^-0.6 + 0.06."""
    return 0.4 * (dict_size / 1000) ** -0.6 + 0.06


def twist(dict_size: float, k: float, tokens: float) -> float:
    """Return a law with all terms: the exponent is 0.5 - 0.05 log(k / 32), and the tokens have a power of 0.7."""
    log_k = math.log(k / 32)
    falling = math.exp(-1 - 0.3 * log_k - (0.5 - 0.05 * log_k) * math.log(dict_size / 1000))
    return falling + math.exp(-3 - 0.2 * log_k) + 0.1 * (tokens / TOKENS) ** -0.7


def plant(law, sizes=SIZES, ks=(K,), tokens=(TOKENS,), noise=NOISE, draw=0) -> list[Trained]:
    generator = np.random.default_rng(mix_seed(draw, "planted law"))
    grid = [(size, k, number) for size in sizes for k in ks for number in tokens]
    return [Trained(*at, law(*at) * math.exp(noise * generator.standard_normal())) for at in grid]


def test_a_law_without_noise_is_found_exactly():
    fit = fit_law(plant(bend, noise=0))
    assert fit.names == ("alpha", "beta_n", "zeta")
    assert fit.find_exponent(K).value == pytest.approx(0.6, rel=1e-4)
    assert fit.find_irreducible(K).value == pytest.approx(0.06, rel=1e-4)
    assert fit.predict(25_600, K, TOKENS).value == pytest.approx(bend(25_600), rel=1e-5)


def test_least_squares_are_those_of_scipy():
    points = plant(bend)

    def off(parameters):
        size, exponent, stays = np.exp(parameters)
        return [math.log(size * (one.dict_size / 1000) ** -exponent + stays) - math.log(one.nmse) for one in points]

    found = least_squares(off, np.log([0.2, 0.3, 0.1]), xtol=1e-12, ftol=1e-12, gtol=1e-12)
    fit = fit_law(points)
    assert fit.sigma == pytest.approx(math.sqrt(2 * found.cost / 2), rel=1e-5)
    assert [fit.find_exponent(K).value, fit.find_irreducible(K).value] == pytest.approx(np.exp(found.x[1:]), rel=1e-4)


def test_a_law_with_all_terms_is_recovered_and_predicts_four_times_the_size():
    points = plant(twist, ks=(16, 32, 64), tokens=(250_000, 500_000, TOKENS))
    fit = fit_law(points)
    assert len(fit.names) == 8
    assert fit.notes == ()
    for k in (16, 64):
        exponent, stays = fit.find_exponent(k), fit.find_irreducible(k)
        assert exponent.low < 0.5 - 0.05 * math.log(k / 32) < exponent.high
        assert stays.low < math.exp(-3 - 0.2 * math.log(k / 32)) < stays.high
        predicted = fit.predict(25_600, k, 2 * TOKENS)
        assert predicted.low < twist(25_600, k, 2 * TOKENS) < predicted.high
        assert predicted.high - predicted.low < 0.1 * predicted.value
    assert fit.sigma == pytest.approx(NOISE, rel=0.3)


def is_between(interval, value: float) -> bool:
    return interval.low <= value <= interval.high


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    found = []
    for draw in range(1, 201):
        fit = fit_law(plant(bend, draw=draw), draws=200)
        later = Trained(25_600, K, TOKENS, bend(25_600) * plant(lambda *at: 1.0, (1,), draw=-draw)[0].nmse)
        held = [is_between(fit.predict(*later[:3]), later.nmse), is_between(fit.evaluate(*later[:3]), bend(25_600))]
        found.append([*held, is_between(fit.find_exponent(K), 0.6)])
    coverage = np.mean(found, axis=0)
    assert coverage.min() >= 0.9, coverage
    assert coverage.max() <= 0.985, coverage


def test_three_sizes_give_a_power_law_with_the_intervals_of_students_t():
    points = plant(lambda size, *_: 0.1 * size**-0.25, sizes=SIZES[:3])
    fit = fit_law(points)
    assert fit.names == ("alpha", "beta_n")
    assert fit.notes == ("A part that does not fall with the size takes 4 sizes, and there are 3.",)
    assert fit.find_irreducible(K) is None
    logs = np.log([(one.dict_size, one.nmse) for one in points])
    slope, squares = np.polyfit(logs[:, 0], logs[:, 1], 1)[0], np.polyfit(logs[:, 0], logs[:, 1], 1, full=True)[1][0]
    reach = 12.706 * math.sqrt(squares / np.square(logs[:, 0] - logs[:, 0].mean()).sum())
    exponent = fit.find_exponent(K)
    assert exponent.value == pytest.approx(-slope, rel=1e-6)
    assert (exponent.high - exponent.low) / 2 == pytest.approx(reach, rel=0.25)  # 1000 draws of a wide distribution


def test_seeds_count_once_so_that_they_do_not_hide_a_law_that_bends_too_little():
    single = plant(bend, sizes=SIZES[:3], noise=0)
    fit, doubled = fit_law(single), fit_law(single * 5)
    assert fit.predict(6400, K, TOKENS) == pytest.approx(doubled.predict(6400, K, TOKENS))
    assert is_between(doubled.predict(6400, K, TOKENS), bend(6400))


def test_two_numbers_of_tokens_leave_no_part_that_stays():
    fit = fit_law(plant(twist, ks=(32,), tokens=(250_000, TOKENS)))
    assert fit.names == ("alpha", "beta_n", "delta", "epsilon")
    assert "takes three numbers of tokens or one, and there are two" in fit.notes[0]
    assert is_between(fit.find_exponent(32), 0.5)


@pytest.mark.parametrize(
    ("sizes", "ks", "line"),
    [
        ((), (K,), "a law of the dictionary size takes several sizes, and there are 0"),
        (SIZES[:1], (K,), "a law of the dictionary size takes several sizes, and there is 1"),
        (SIZES[:1], (16, 32, 64), "a law of the dictionary size takes several sizes, and there is 1"),
        (
            SIZES[:2],
            (K,),
            "a law of 2 parameters with error bars takes 3 SAEs that differ in size, k or tokens, and there are 2",
        ),
    ],
)
def test_too_few_points_are_refused_with_a_sentence(sizes, ks, line):
    with pytest.raises(ScalingError) as caught:
        fit_law(plant(bend, sizes=sizes, ks=ks))
    assert str(caught.value) == line


def test_few_points_have_few_terms():
    assert fit_law(plant(bend, sizes=SIZES[:2], ks=(16, 32))).names == ("alpha", "beta_k", "beta_n")
    assert "eta" not in fit_law(plant(twist, sizes=SIZES[:4], ks=(16, 32))[:6]).names


def test_a_constant_curve_is_predicted_to_stay():
    fit = fit_law(plant(lambda *at: 0.07))
    predicted = fit.predict(25_600, K, TOKENS)
    assert predicted.value == pytest.approx(0.07, rel=0.02)
    assert is_between(predicted, 0.07)
    assert predicted.high - predicted.low < 0.02


def test_points_without_a_finite_nmse_are_left_out():
    points = plant(bend)
    others = [Trained(800, K, TOKENS, value) for value in (math.nan, math.inf, 0.0, -1.0)]
    fit, known = fit_law([*others, *points]), fit_law(points)
    assert fit.predict(9600, K, TOKENS) == known.predict(9600, K, TOKENS)
    assert len(fit.points) == len(points)


def test_the_largest_size_is_predicted_without_its_points():
    points = plant(bend)
    (found,) = hold_out([*points, points[-1]._replace(nmse=points[-1].nmse * 1.5**2)])
    alone = fit_law(points[:-1]).predict(6400, K, TOKENS)
    assert (found.dict_size, found.predicted) == (6400, alone)
    assert found.nmse == pytest.approx(1.5 * points[-1].nmse)
    assert found.miss == pytest.approx(alone.value / found.nmse - 1)
    with pytest.raises(ScalingError):
        hold_out(points[:3])


def test_no_torch_is_imported():
    program = "import sys; import sae_sweeps.studies.scaling; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
