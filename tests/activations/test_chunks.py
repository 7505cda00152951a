import torch

from sae_sweeps.activations.chunks import ActivationChunks
from sae_sweeps.activations.tokens import TokenSource
from sae_sweeps.config import DatasetConfig
from tests.activations.test_documents import letters


class TokensAsActivations:
    """A model whose activation at each position is (token, position)."""

    def activations(self, tokens_NS, on_progress=None):
        position_S = torch.arange(tokens_NS.shape[1]).expand_as(tokens_NS)
        return torch.stack([tokens_NS, position_S], dim=-1).float()


def stream(folder, seed=0, prepend_bos=True):
    for number in range(40):
        (folder / f"{number:03d}.txt").write_text("".join(chr(1000 + 30 * number + at) for at in range(30)))
    dataset = DatasetConfig(
        format="text", files=f"{folder}/*.txt", holdout_every=10, seq_len=6, prepend_bos=prepend_bos, seed=seed
    )
    tokens = TokenSource(dataset, letters, bos=1 if prepend_bos else None, eos=None)
    return ActivationChunks(TokensAsActivations(), tokens, chunk_size=24, seed=seed)


def test_a_chunk_has_its_size_and_no_bos(tmp_path):
    chunk_AD = stream(tmp_path).chunk(0)
    assert chunk_AD.shape == (24, 2)
    assert (chunk_AD[:, 0] != 1).all()
    assert set(chunk_AD[:, 1].tolist()) <= {1, 2, 3, 4, 5}
    assert len(chunk_AD[:, 0].unique()) == 24


def test_without_bos_the_first_position_is_included(tmp_path):
    positions = stream(tmp_path, prepend_bos=False).chunk(0)[:, 1]
    assert 0 in positions.tolist()


def test_a_chunk_depends_on_seed_and_index_alone(tmp_path):
    here, there = stream(tmp_path), stream(tmp_path)
    third = here.chunk(2)
    assert torch.equal(there.chunk(2), third)
    assert torch.equal(here.chunk(2), third)
    assert not torch.equal(here.chunk(1), third)
    assert not torch.equal(stream(tmp_path, seed=1).chunk(2), third)


def test_activations_are_shuffled_within_a_chunk(tmp_path):
    tokens = stream(tmp_path).chunk(0)[:, 0]
    pair_neighbours = (tokens.diff() == 1).float().mean()
    assert pair_neighbours < 0.3
