"""The split, the ranking of latents and the classifiers of sparse probing, compared with sae-probes' rules."""

import numpy as np
import pytest
from scipy.sparse import csc_array
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sae_sweeps.studies.probing import STRENGTHS, encode_sparsely, fit, rank_latents, split_texts, take_columns
from tests.studies.random_saes import activations, random_sae


def split_as_sae_probes(is_positive_T, num_train, num_test, seed):
    """The split of sae-probes 0.4.2 for half of each class, step by step."""
    rng = np.random.RandomState(seed)
    train, rest = [], []
    for part, size in ((is_positive_T, -(-num_train // 2)), (~is_positive_T, num_train // 2)):
        train.append(rng.choice(np.where(part)[0], size=size, replace=False))
        rest.append(np.setdiff1d(np.where(part)[0], train[-1]))
    sizes = (-(-num_test // 2), num_test // 2)
    test = [rng.choice(one, size=size, replace=False) for one, size in zip(rest, sizes, strict=True)]
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


@pytest.mark.parametrize(("texts", "train"), [(5000, 1024), (1124, 1024), (786, 686), (200, 100)])
def test_the_split_is_that_of_sae_probes(texts, train):
    is_positive_T = np.random.default_rng(texts).permutation(np.arange(texts) % 2 == 0)
    split = split_texts(is_positive_T, 42)
    expected = split_as_sae_probes(is_positive_T, train, texts - train - 1, 42)
    np.testing.assert_array_equal(split.train_N, expected[0])
    np.testing.assert_array_equal(split.test_M, expected[1])


def test_classes_of_different_sizes_are_used_half_and_half():
    is_positive_T = np.arange(1000) < 80
    train_N, test_M = split_texts(is_positive_T, 0)
    assert (len(train_N), len(test_M)) == (60, 99)
    assert (is_positive_T[train_N].sum(), is_positive_T[test_M].sum()) == (30, 50)
    assert len({*train_N, *test_M}) == 159


def test_latents_are_ranked_by_their_normalised_mean_difference():
    rng = np.random.default_rng(1)
    latents_NF = (rng.random((200, 30)) * (rng.random((200, 30)) < 0.2) * rng.uniform(0.1, 50, 30)).astype(np.float32)
    latents_NF[:, 7] = 0
    is_positive_N = rng.random(200) < 0.5
    latents_NF[is_positive_N, 3] += 100
    dense = latents_NF.astype(np.float64)
    means = np.abs(dense).sum(0) / ((dense != 0).sum(0) + 1e-6)
    normalised = dense / (means + 1e-6)
    expected = np.abs(normalised[is_positive_N].mean(0) - normalised[~is_positive_N].mean(0))
    ranked = rank_latents(csc_array(latents_NF), is_positive_N)
    assert ranked[0] == 3
    assert ranked[-1] == 7
    np.testing.assert_array_equal(ranked, np.argsort(-expected, kind="stable"))


@pytest.mark.parametrize("architecture", ["batchtopk", "topk"])
def test_sparse_latents_are_those_of_the_sae(architecture, monkeypatch):
    monkeypatch.setattr("sae_sweeps.studies.probing.ENCODED_AT_ONCE", 7)
    sae = random_sae(architecture, 40, 0).float().for_inference()
    acts_TD = activations(23).float()
    latents_TF = encode_sparsely(sae, acts_TD)
    np.testing.assert_allclose(latents_TF.toarray(), sae.encode(acts_TD).numpy(), rtol=1e-5, atol=1e-6)
    assert 0 < latents_TF.nnz < 23 * sae.dict_size
    np.testing.assert_array_equal(take_columns(latents_TF, [3, 1]), latents_TF.toarray()[:, [3, 1]])


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("texts", [90, 400])
def test_the_strength_is_the_best_one_on_texts_that_are_not_fitted(penalty, texts):
    rng = np.random.default_rng(texts)
    x = rng.normal(size=(texts + 50, 5)).astype(np.float32)
    y = x[:, 0] + 2 * rng.normal(size=len(x)) > 0
    fitted = fit(x[:texts], y[:texts], x[texts:], y[texts:], penalty, 3)
    options = {"solver": "saga", "l1_ratio": 1.0} if penalty == "l1" else {}
    x = x.astype(np.float64)
    order = np.random.RandomState(3).permutation(texts)
    model = LogisticRegression(C=fitted.strength, random_state=3, max_iter=1000, **options)
    model.fit(x[:texts][order], y[:texts][order])
    expected = roc_auc_score(y[texts:], model.predict_proba(x[texts:])[:, 1])
    assert fitted.placements.auc == pytest.approx(expected, abs=1e-12)
    assert fitted.accuracy == model.score(x[texts:], y[texts:])
    if texts == 400:
        scores = []
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, random_state=3, max_iter=1000, **options).fit(x[:320], y[:320])
            scores.append(roc_auc_score(y[320:400], model.predict_proba(x[320:400])[:, 1]))
        assert fitted.strength == STRENGTHS[int(np.argmax(scores))]


def test_labels_by_chance_give_an_auc_near_a_half():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(600, 4)), rng.random(600) < 0.5
    fitted = fit(x[:300], y[:300], x[300:], y[300:], "l2", 0)
    assert abs(fitted.placements.auc - 0.5) < 0.1
