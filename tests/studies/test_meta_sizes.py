"""One meta-SAE over several sizes: planted atoms that all sizes use, or a single one, and counts from dense weights."""

import pytest
import torch

from sae_sweeps.studies.directions import compare
from sae_sweeps.studies.meta_sae import MetaSAE
from sae_sweeps.studies.meta_sizes import Stack, compute_shares, count_uses, describe_saes
from tests.entries import from_flat

D = 32


def plant(stack: Stack, atoms_of: list[list[int]], hidden: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the directions of all SAEs, positive sums of two or six atoms of theirs, and the atoms (hidden, D)."""
    generator = torch.Generator().manual_seed(0)
    atoms_MD = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q[:hidden]
    weight_FM = torch.zeros(sum(stack.sizes), hidden)
    for start, size, atoms in zip(stack.starts, stack.sizes, atoms_of, strict=True):
        for number in range(size):
            drawn = torch.randperm(len(atoms), generator=generator)[: (2, 6)[number % 2]]
            weight_FM[start + number, torch.tensor(atoms)[drawn]] = 0.5 + torch.rand(len(drawn), generator=generator)
    return torch.nn.functional.normalize(weight_FM @ atoms_MD, dim=1), atoms_MD


def train_best(directions_FD: torch.Tensor, hidden: int) -> MetaSAE:
    """Return the first good one of a few meta-SAEs: some have their bias in place of a meta-latent."""
    settings = {"dict_size": hidden, "k": 4, "steps": 1000, "batch_size": 50, "lr": 1e-2}
    found = (MetaSAE.train(directions_FD, **settings, seed=seed) for seed in range(3))
    return next(meta for meta in found if meta.explained_variance > 0.995)


# atoms of each size: the first `common` of all, and a part of the others each
CASES = [
    (8, [[8, 9, 10, 11, 12, 13], [14, 15, 16, 17, 18], [19, 20, 21, 22, 23]]),
    (12, [[12, 13, 14, 15, 16], [17, 18, 19, 20, 21, 22, 23]]),
    (0, [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15], [16, 17, 18, 19, 20, 21, 22, 23]]),
]


@pytest.mark.parametrize(("common", "own"), CASES, ids=["some", "most", "none"])
def test_atoms_that_sizes_share_are_found(common, own):
    atoms_of = [[*range(common), *atoms] for atoms in own]
    sizes = [160, 240, 320][: len(own)]
    stack = Stack([f"point-{size}" for size in sizes], sizes)
    directions_FD, atoms_MD = plant(stack, atoms_of, 24)
    meta = train_best(directions_FD, 24)
    assert meta.explained_variance > 0.995
    matches = compare(meta.sae.W_dec.detach(), atoms_MD)
    assert matches.left.cosine.min() > 0.99
    assert sorted(matches.left.index.tolist()) == list(range(24))

    uses_SM = count_uses(meta.weights, stack.find_sae(meta.latents_A), len(sizes))
    shares = compute_shares(uses_SM)
    for at, atoms in enumerate(atoms_of):
        for other in range(len(sizes)):
            planted = 1.0 if other == at else common / len(atoms)
            assert shares[at][other] == pytest.approx(planted, abs=0.02), (at, other)
    everything = torch.ones(len(directions_FD), dtype=torch.bool)
    for row, atoms, mine in zip(describe_saes(stack, meta, meta, everything), atoms_of, own, strict=True):
        assert row["meta_latents"] == len(atoms)
        assert row["meta_latents_only_here"] == len(mine)
        assert row["explained_variance"] > 0.98
        assert row["l0"] == pytest.approx(4, abs=0.2)


def test_a_meta_sae_of_shuffled_directions_finds_no_parts_of_one_size():
    stack = Stack(["small", "large"], [160, 240])
    directions_FD, _ = plant(stack, [list(range(12)), list(range(12, 24))], 24)
    control = MetaSAE.train(directions_FD, dict_size=24, k=4, steps=300, batch_size=50, lr=1e-2).control()
    uses_SM = count_uses(control.weights, stack.find_sae(control.latents_A), 2)
    assert min(compute_shares(uses_SM)[0]) > 0.9


def test_uses_and_shares_are_those_of_dense_weights():
    stack = Stack(["a", "b", "c"], [7, 3, 20])
    generator = torch.Generator().manual_seed(1)
    weight_AM = torch.rand(24, 11, generator=generator) * (torch.rand(24, 11, generator=generator) < 0.15)
    latents_A = torch.randperm(30, generator=generator)[:24].sort().values
    flat_N = weight_AM.flatten().nonzero().squeeze(1)
    weights = from_flat(flat_N, weight_AM.flatten()[flat_N], (24, 11))
    uses_SM = count_uses(weights, stack.find_sae(latents_A), 3)
    used = []
    for at, (start, size) in enumerate(zip(stack.starts, stack.sizes, strict=True)):
        mine = [row for row, latent in enumerate(latents_A.tolist()) if start <= latent < start + size]
        assert uses_SM[at].tolist() == (weight_AM[mine] > 0).sum(0).tolist()
        used.append({meta for row in mine for meta in range(11) if weight_AM[row, meta] > 0})
    for at, row in enumerate(compute_shares(uses_SM)):
        for other, share in enumerate(row):
            assert share == pytest.approx(len(used[at] & used[other]) / len(used[at]))


def test_an_sae_without_decomposed_latents_has_no_shares():
    stack = Stack(["a", "b"], [5, 60])
    directions_FD, _ = plant(stack, [list(range(12)), list(range(12))], 12)
    alive = list(range(5, 65))
    meta = MetaSAE.train(directions_FD, latents=alive, dict_size=12, k=4, steps=20, batch_size=20)
    uses_SM = count_uses(meta.weights, stack.find_sae(meta.latents_A), 2)
    shares = compute_shares(uses_SM)
    assert shares[0] == [None, None]
    assert shares[1] == [0, 1]
    empty, row = describe_saes(stack, meta, meta, torch.arange(65) >= 5)
    assert (empty["decomposed"], empty["never_active"], empty["meta_latents"]) == (0, 5, 0)
    for name in ("explained_variance", "l0", "nearest_meta_latent_mean", "nearest_other_latent_mean"):
        assert empty[name] is None
    assert empty["nearest_latent_mean_of"] == {"60": None}
    assert empty["meta_latents_per_latent"] == []
    assert row["nearest_latent_mean_of"] == {"5": None}
    assert row["meta_latents"] == row["meta_latents_only_here"]


def test_cosines_are_those_of_all_pairs():
    stack = Stack(["a", "b"], [9, 14])
    directions_FD, _ = plant(stack, [list(range(12)), list(range(6, 20))], 20)
    meta = MetaSAE.train(directions_FD, dict_size=6, k=2, steps=10, batch_size=10)
    rows = describe_saes(stack, meta, meta, torch.ones(23, dtype=torch.bool))
    cosine_FF = directions_FD @ directions_FD.T - 2 * torch.eye(23)
    parts = [slice(0, 9), slice(9, 23)]
    for row, part, other, size in zip(rows, parts, parts[::-1], ["14", "9"], strict=True):
        assert row["nearest_other_latent_mean"] == pytest.approx(cosine_FF[part, part].amax(1).mean().item(), abs=1e-5)
        across = cosine_FF[part, other].amax(1).mean().item()
        assert row["nearest_latent_mean_of"] == {size: pytest.approx(across, abs=1e-5)}
        unit_MD = torch.nn.functional.normalize(meta.sae.W_dec.detach(), dim=1)
        expected = (directions_FD[part] @ unit_MD.T).amax(1).mean().item()
        assert row["nearest_meta_latent_mean"] == pytest.approx(expected, abs=1e-5)
