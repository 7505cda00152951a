"""Sparse probing: the latents whose activations differ most between two classes of texts, and classifiers on them.

The split, the ranking of latents, the classifier and its choice of a penalty are those of sae-probes 0.4 (setting
"normal"; Kantamneni et al., arXiv:2502.16681), so that the numbers are equal on equal activations.
"""

# T texts, N of them to train on and M to test on, D model width, F latents, K columns of a classifier, E entries

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array, csc_array, vstack

from sae_sweeps.studies.auc import Array, Placements, place

if TYPE_CHECKING:
    from torch import Tensor

    from sae_sweeps.saes import InferenceSAE

TESTED, TRAINED = 100, 1024  # at least as many texts to test on, if there are few; and at most as many to train on
LEAST = 58  # texts of each class: 16 to train on
STRENGTHS = np.logspace(5, -5, 10)  # inverse strengths of the penalty, scikit-learn's C, that are tried
FOLDS, FOLDED = 6, 128  # folds of a cross-validation, and the number of texts from which one part validates instead
VALIDATED, MOST_VALIDATED = 0.2, 100  # share and largest number of the texts in that part, the last ones
ENCODED_AT_ONCE = 1024  # texts
STEPS = 1000  # most steps of a fit
EPSILON = 1e-6


class Split(NamedTuple):
    """Numbers of the texts to train on (N,) and to test on (M,), each in a drawn order."""

    train_N: Array
    test_M: Array


def split_texts(is_positive_T: Array, seed: int) -> Split:
    """Draw texts to train on and to test on, half of each class; the texts of the larger class are not all used.

    The numbers come from NumPy's older generator, seeded with `seed` itself, as in sae-probes.
    """
    rng = np.random.RandomState(seed)
    positives, negatives = np.flatnonzero(is_positive_T), np.flatnonzero(~is_positive_T)
    texts = 2 * min(len(positives), len(negatives))
    assert texts >= 2 * LEAST, "the reader of a data set counts its classes"
    train = min(texts - TESTED, TRAINED)
    drawn: dict[str, list[Array]] = {}
    rest = [positives, negatives]
    for part, count in (("train", train), ("test", texts - train - 1)):
        sizes = (-(-count // 2), count // 2)
        drawn[part] = [rng.choice(one, size=size, replace=False) for one, size in zip(rest, sizes, strict=True)]
        rest = [np.setdiff1d(one, taken) for one, taken in zip(rest, drawn[part], strict=True)]
    return Split(*(rng.permutation(np.concatenate(drawn[part])) for part in ("train", "test")))


def rank_latents(latents_NF: csc_array, is_positive_N: Array) -> Array:
    """Return the numbers of the latents (F,), the one whose mean activation differs most between the classes first.

    A latent's activations are divided by the mean size of those that are not 0. Latents that differ as much are in the
    order of their numbers.
    """
    size_F = np.asarray(abs(latents_NF).sum(0, dtype=np.float64))
    mean_F = size_F / (np.diff(latents_NF.indptr) + EPSILON)
    weight_N = np.where(is_positive_N, 1 / is_positive_N.sum(), -1 / (~is_positive_N).sum())
    difference_F = (latents_NF.T.astype(np.float64) @ weight_N) / (mean_F + EPSILON)
    return np.argsort(-np.abs(difference_F), kind="stable")


@dataclass(frozen=True)
class Fitted:
    """A classifier on the texts that it was not trained on.

    accuracy: share of texts whose class it finds
    f1: mean of the F1 scores of both classes, weighted by their numbers of texts
    strength: the chosen inverse strength of the penalty, C
    """

    placements: Placements
    accuracy: float
    f1: float
    strength: float


def fit(train_NK: Array, is_positive_N: Array, test_MK: Array, is_positive_M: Array, penalty: str, seed: int) -> Fitted:
    """Fit a logistic regression to features (N, K), choose the strength of its penalty, and test it.

    It computes in float64, as scikit-learn does with the tensors of sae-probes; in float32 it stops earlier.
    penalty: l1 or l2; seed: of the order of the texts and of the solver
    """
    from sklearn.metrics import accuracy_score, f1_score

    train_NK, test_MK = train_NK.astype(np.float64), test_MK.astype(np.float64)
    folds = _list_folds(train_NK, is_positive_N, seed)
    scores = [
        np.mean([_validate(train_NK, is_positive_N, fold, strength, penalty, seed) for fold in folds])
        for strength in STRENGTHS
    ]
    strength = float(STRENGTHS[int(np.argmax(scores))])
    order_N = np.random.RandomState(seed).permutation(len(train_NK))
    model = _make_model(strength, penalty, seed).fit(train_NK[order_N], is_positive_N[order_N])
    predicted_M = model.predict(test_MK)
    return Fitted(
        place(model.predict_proba(test_MK)[:, 1], is_positive_M),
        float(accuracy_score(is_positive_M, predicted_M)),
        float(f1_score(is_positive_M, predicted_M, average="weighted")),
        strength,
    )


def _list_folds(train_NK: Array, is_positive_N: Array, seed: int) -> list[tuple[Any, Any]]:
    """Return pairs of the numbers of texts to fit to and to validate on: one, or several if there are few texts."""
    from sklearn.model_selection import StratifiedKFold

    texts = len(train_NK)
    if texts < FOLDED:
        return list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(train_NK, is_positive_N))
    fitted = texts - min(int(VALIDATED * texts), MOST_VALIDATED)
    return [(slice(None, fitted), slice(fitted, None))]


def _validate(
    train_NK: Array, is_positive_N: Array, fold: tuple[Any, Any], strength: float, penalty: str, seed: int
) -> float:
    """Return the AUC on the second part of a fold of a classifier that is fitted to the first one."""
    from sklearn.metrics import roc_auc_score

    fitted, validated = fold
    model = _make_model(strength, penalty, seed).fit(train_NK[fitted], is_positive_N[fitted])
    return float(roc_auc_score(is_positive_N[validated], model.predict_proba(train_NK[validated])[:, 1]))


def _make_model(strength: float, penalty: str, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    options = _find_l1_options() if penalty == "l1" else {}
    return LogisticRegression(C=strength, random_state=seed, max_iter=STEPS, **options)


@functools.cache
def _find_l1_options() -> dict[str, Any]:
    """Return the options of scikit-learn's L1 penalty, which version 1.8 has renamed."""
    import sklearn

    version = tuple(map(int, sklearn.__version__.split(".")[:2]))
    return {"solver": "saga", **({"l1_ratio": 1.0} if version >= (1, 8) else {"penalty": "l1"})}


def take_columns(latents_TF: csc_array, columns: Sequence[int] | Array) -> Array:
    """Return the activations of some latents as a dense matrix (T, K) in float32."""
    return np.ascontiguousarray(latents_TF[:, columns].toarray(), dtype=np.float32)


def encode_sparsely(sae: "InferenceSAE", acts_TD: "Tensor") -> csc_array:
    """Return the latent activations (T, F) of raw activations (T, D) of any dtype, as a sparse matrix on the CPU."""
    parts = []
    for acts_BD in acts_TD.split(ENCODED_AT_ONCE):
        found = sae.find_active(sae.normalize(acts_BD.to(sae.W_dec.device).float()))
        active_E = found.active
        row_E, col_E, value_E = (part[active_E].cpu().numpy() for part in (found.row_N, found.col_N, found.value))
        parts.append(coo_array((value_E, (row_E, col_E)), shape=found.shape).tocsr())
    return vstack(parts, format="csc")
