"""Scaling laws: the NMSE of SAEs as a function of dictionary size, k and training tokens, with error bars.

The form is that of Gao et al. 2024 (arXiv:2406.04093, section 3):

    NMSE = exp(alpha + beta_k log k + beta_n log F + gamma log k log F) + exp(zeta + eta log k)

The second part does not fall with the dictionary size F. With several numbers of training tokens T, a third part
exp(delta + epsilon log T) is added. Terms that the points do not determine are left out: `choose_form`.

Letters: N points, P parameters, R draws, S parts of the sum.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_sweeps.evaluation.bootstrap import TAIL, Interval
from sae_sweeps.runtime.seeds import mix_seed

Array = NDArray[np.float64]

PARTS = {  # parameter -> part of the sum, and its factor: axes whose centred logarithms are multiplied
    "alpha": (0, ()),
    "beta_k": (0, ("k",)),
    "beta_n": (0, ("dict_size",)),
    "gamma": (0, ("k", "dict_size")),
    "zeta": (1, ()),
    "eta": (1, ("k",)),
    "delta": (2, ()),
    "epsilon": (2, ("tokens",)),
}
AXES = ("dict_size", "k", "tokens")
SIZES_FOR_IRREDUCIBLE = 4  # with three sizes, a power law and a constant fit any three values
DRAWS = 1000
STEEPEST = 3.0  # power of a size that a law may have; without a bound, a nearly constant curve allows any
STEPS = 80  # of the Levenberg-Marquardt method
LARGEST_SIGMA = 1.0  # of the logarithm of the NMSE: larger ones say nothing more


class ScalingError(ValueError):
    """Raised if a law cannot be fitted to the points; the message is a sentence that says why."""


class Trained(NamedTuple):
    """The sizes of a trained SAE, and its NMSE."""

    dict_size: int
    k: int
    tokens: int
    nmse: float


@dataclass(frozen=True)
class Fit:
    """A law that is fitted to points.

    names: the parameters that it has, in the order of PARTS
    center: axis -> logarithm of its geometric mean over the points, at which the logarithms in the law begin
    parameters_P: those with the least squares of log NMSE; drawn_RP: the same for draws of the noise
    sigma, drawn_R: standard deviation of log NMSE around the law
    notes: why the law has no more terms than it has, one sentence each
    """

    points: Sequence[Trained]
    names: tuple[str, ...]
    center: dict[str, float]
    parameters_P: Array
    drawn_RP: Array
    sigma: float
    drawn_R: Array
    notes: tuple[str, ...] = field(default=())

    def predict(self, dict_size: float, k: float, tokens: float) -> Interval:
        """Return the NMSE that another point would have, with its 95 % interval: of the law, and of the noise."""
        value, log_R = self._evaluate(dict_size, k, tokens)
        noise_R = _generator("noise of a prediction").standard_normal(len(log_R))
        return _interval(value, np.exp(log_R + self.drawn_R * noise_R))

    def evaluate(self, dict_size: float, k: float, tokens: float) -> Interval:
        """Return the NMSE of the law, with its 95 % interval."""
        value, log_R = self._evaluate(dict_size, k, tokens)
        return _interval(value, np.exp(log_R))

    def find_exponent(self, k: float) -> Interval:
        """Return b of F^-b, the power of the dictionary size with which the first part falls, at a k."""
        size_P = np.array([PARTS[name][1].count("dict_size") for name in self.names])
        factor_P = -size_P * self._design(1.0, k, 1.0, ("dict_size",))
        return _interval(float(self.parameters_P @ factor_P), self.drawn_RP @ factor_P)

    def find_irreducible(self, k: float) -> Interval | None:
        """Return the part of the NMSE that does not fall with the dictionary size; None if the law has none."""
        if "zeta" not in self.names:
            return None
        part_P = np.array([PARTS[name][0] == 1 for name in self.names])
        factor_P = part_P * self._design(1.0, k, 1.0)
        return _interval(float(np.exp(self.parameters_P @ factor_P)), np.exp(self.drawn_RP @ factor_P))

    def _evaluate(self, dict_size: float, k: float, tokens: float) -> tuple[float, Array]:
        """Return the NMSE of the law, and its logarithm for each draw."""
        design_1P = self._design(dict_size, k, tokens)[None]
        value = _evaluate_law(self.names, design_1P, self.parameters_P[None])[0]
        return float(np.exp(value[0, 0])), _evaluate_law(self.names, design_1P, self.drawn_RP)[0][:, 0]

    def _design(self, dict_size: float, k: float, tokens: float, ones: Sequence[str] = ()) -> Array:
        """Return the factors (P,) of the parameters. ones: axes whose factor is 1"""
        at = {axis: np.log(value) - self.center[axis] for axis, value in zip(AXES, (dict_size, k, tokens), strict=True)}
        return _multiply(self.names, at | dict.fromkeys(ones, 1.0))


class Predicted(NamedTuple):
    """A prediction of an SAE that was not used for it. nmse: what it has; None as long as it is not trained"""

    dict_size: int
    k: int
    tokens: int
    predicted: Interval
    nmse: float | None

    @property
    def miss(self) -> float | None:
        """Return by which share of the truth the prediction is too high; None if the truth is not known."""
        return None if self.nmse is None else self.predicted.value / self.nmse - 1


def fit_law(points: Sequence[Trained], draws: int = DRAWS) -> Fit:
    """Fit a law to the means over seeds. Points without a finite positive NMSE are left out. Raises: ScalingError.

    The noise of the draws is normal, with a variance that is drawn as well, from what the residuals say of it. In a
    linear law the intervals are those of Student's t. Seeds are no further residuals: a law that bends too little is
    off by the same in all of them.
    """
    points = average_seeds(points)
    names, notes = choose_form(points)
    center = {axis: float(np.mean([np.log(getattr(point, axis)) for point in points])) for axis in AXES}
    logs = {axis: np.log([getattr(point, axis) for point in points]) - center[axis] for axis in AXES}
    design_NP, log_N = _multiply(names, logs).T, np.log([point.nmse for point in points])

    starts_RP = _list_starts(names, float(log_N.mean()))
    tried_RP = _minimise(names, design_NP, np.broadcast_to(log_N, (len(starts_RP), len(log_N))), starts_RP)
    squares_R = np.square(_evaluate_law(names, design_NP, tried_RP)[0] - log_N).sum(1)
    best_P, squares = tried_RP[squares_R.argmin()], float(squares_R.min())

    generator, freedom = _generator("noise of a scaling law"), len(points) - len(names)
    sigma_R = np.minimum(np.sqrt(squares / generator.chisquare(freedom, draws)), LARGEST_SIGMA)
    law_N = _evaluate_law(names, design_NP, best_P[None])[0][0]
    log_RN = law_N + sigma_R[:, None] * generator.standard_normal((draws, len(points)))
    drawn_RP = _minimise(names, design_NP, log_RN, np.broadcast_to(best_P, (draws, len(names))))
    return Fit(points, names, center, best_P, drawn_RP, (squares / freedom) ** 0.5, sigma_R, notes)


def average_seeds(points: Sequence[Trained]) -> list[Trained]:
    """Return a point for each dictionary size, k and tokens, with the geometric mean of its finite positive NMSEs.

    They are in order, so that draws do not depend on the order of the points.
    """
    found: dict[tuple[int, int, int], list[float]] = {}
    for point in points:
        if np.isfinite(point.nmse) and point.nmse > 0:
            found.setdefault((point.dict_size, point.k, point.tokens), []).append(point.nmse)
    return [Trained(*at, float(np.exp(np.mean(np.log(nmse))))) for at, nmse in sorted(found.items())]


def choose_form(points: Sequence[Trained]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the parameters of the law that the points can determine, and why it has no others.

    points: one of each dictionary size, k and tokens
    Raises: ScalingError if they are too few.
    """
    sizes, ks, tokens = (len({getattr(point, axis) for point in points}) for axis in AXES)
    if sizes < 2:
        raise ScalingError(f"a law of the dictionary size takes several sizes, and there {_count(sizes)}")
    names = ["alpha", "beta_n", *["beta_k"] * (ks > 1), *["delta", "epsilon"] * (tokens > 1)]
    if len(points) <= len(names):
        needed = f"a law of {len(names)} parameters with error bars takes {len(names) + 1} SAEs that differ in size"
        raise ScalingError(f"{needed}, k or tokens, and there {_count(len(points))}")
    left_out = ""
    if sizes < SIZES_FOR_IRREDUCIBLE:
        left_out = f"takes {SIZES_FOR_IRREDUCIBLE} sizes, and there are {sizes}"
    elif tokens == 2:
        left_out = "takes three numbers of tokens or one, and there are two"
    elif len(points) <= len(names) + 1:
        left_out = f"takes {len(names) + 2} SAEs that differ in size, k or tokens, and there {_count(len(points))}"
    else:
        names.append("zeta")
    for name in [*["gamma"] * (ks > 1), *["eta"] * (ks > 1 and not left_out)]:
        if len(points) > len(names) + 1:
            names.append(name)
    notes = (f"A part that does not fall with the size {left_out}.",) if left_out else ()
    return tuple(name for name in PARTS if name in names), notes


def hold_out(points: Sequence[Trained], axis: str = "dict_size") -> list[Predicted]:
    """Predict the points with the largest value on an axis from the others. Raises: ScalingError if that is impossible.

    The interval holds for the mean over as many seeds as the other points have.
    """
    points = average_seeds(points)
    largest = max((getattr(point, axis) for point in points), default=0)
    fit = fit_law([point for point in points if getattr(point, axis) < largest])
    held_out = [point for point in points if getattr(point, axis) == largest]
    return [Predicted(*point[:3], fit.predict(*point[:3]), point.nmse) for point in held_out]


def _count(number: int) -> str:
    return f"{'is' if number == 1 else 'are'} {number}"


def _generator(purpose: str) -> np.random.Generator:
    return np.random.default_rng(mix_seed(0, purpose))


def _interval(value: float, drawn_R: Array) -> Interval:
    low, high = np.quantile(drawn_R, [TAIL, 1 - TAIL])
    return Interval(value, min(float(low), value), max(float(high), value))


def _multiply(names: Sequence[str], logs: dict[str, Array]) -> Array:
    """Return the factor of each parameter (P, ...) from the centred logarithms on each axis."""
    one = np.ones_like(logs["k"], dtype=float)
    return np.stack([functools.reduce(np.multiply, [logs[axis] for axis in PARTS[name][1]], one) for name in names])


def _evaluate_law(names: Sequence[str], design_NP: Array, parameters_RP: Array) -> tuple[Array, Array]:
    """Return the logarithm of the law (R, N), and its derivative by the parameters (R, N, P)."""
    part_P = np.array([PARTS[name][0] for name in names])
    member_SP = np.unique(part_P)[:, None] == part_P
    logs_RSN = np.clip(np.einsum("rp,sp,np->rsn", parameters_RP, member_SP.astype(float), design_NP), -200, 200)
    log_RN = np.logaddexp.reduce(logs_RSN, axis=1)
    share_RSN = np.exp(logs_RSN - log_RN[:, None])
    return log_RN, share_RSN[:, member_SP.argmax(0)].swapaxes(1, 2) * design_NP


def _list_starts(names: Sequence[str], log_mean: float) -> Array:
    """Return parameters to begin from (R, P): parts of several sizes, which fall quickly or slowly."""
    choices = {"alpha": (0.0,), "zeta": (-3.0, 0.0, 2.0), "delta": (-3.0, 0.0), "beta_n": (-0.2, -1.0)}
    rows = itertools.product(*(choices.get(name, (-0.5 * (name == "epsilon"),)) for name in names))
    is_size_P = np.array([name in ("alpha", "zeta", "delta") for name in names])
    starts_RP = np.array(list(rows))
    sizes_RP = np.where(is_size_P, np.exp(starts_RP), 0.0)
    return starts_RP + is_size_P * (log_mean - np.log(sizes_RP.sum(1, keepdims=True)))


def _bound(names: Sequence[str]) -> tuple[Array, Array]:
    """Return the lowest and highest values of the parameters. Beside a part that stays, the others do not rise."""
    bounds = {"beta_n": (-STEEPEST, 0.0 if "zeta" in names else STEEPEST), "epsilon": (-STEEPEST, 0.0)}
    low_P, high_P = np.array([bounds.get(name, (-np.inf, np.inf)) for name in names]).T
    return low_P, high_P


def _minimise(names: Sequence[str], design_NP: Array, log_RN: Array, parameters_RP: Array) -> Array:
    """Return the parameters with the least squares for each row of data, by the Levenberg-Marquardt method."""
    low_P, high_P = _bound(names)
    value_RN, slope_RNP = _evaluate_law(names, design_NP, parameters_RP)
    damping_R = np.full(len(parameters_RP), 1e-2)
    for _ in range(STEPS):
        off_RN = log_RN - value_RN
        square_RPP = slope_RNP.swapaxes(1, 2) @ slope_RNP
        diagonal_RP = np.einsum("rpp->rp", square_RPP) + 1e-9
        square_RPP = square_RPP + np.eye(len(names)) * (damping_R[:, None] * diagonal_RP)[:, None]
        step_RP = np.linalg.solve(square_RPP, np.einsum("rnp,rn->rp", slope_RNP, off_RN)[..., None])[..., 0]
        tried_RP = np.clip(parameters_RP + np.clip(step_RP, -1, 1), low_P, high_P)
        tried_RN, tried_RNP = _evaluate_law(names, design_NP, tried_RP)
        is_better_R = np.square(log_RN - tried_RN).sum(1) < np.square(off_RN).sum(1)
        parameters_RP = np.where(is_better_R[:, None], tried_RP, parameters_RP)
        value_RN = np.where(is_better_R[:, None], tried_RN, value_RN)
        slope_RNP = np.where(is_better_R[:, None, None], tried_RNP, slope_RNP)
        damping_R = np.clip(damping_R * np.where(is_better_R, 0.3, 4.0), 1e-9, 1e9)
    return parameters_RP
