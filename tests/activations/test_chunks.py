import pytest
import torch

from sae_sweeps.activations.cache import ActivationCache
from sae_sweeps.activations.chunks import ActivationChunks
from sae_sweeps.activations.tokens import TokenSource
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError
from tests.activations.test_documents import letters


class TokensAsActivations:
    """A model whose activation at each position is (token, position), times the length of the hook's name at others."""

    def activations_at(self, tokens_NS, hooks, on_progress=None):
        position_S = torch.arange(tokens_NS.shape[1]).expand_as(tokens_NS)
        return {hook: (1 + len(hook)) * torch.stack([tokens_NS, position_S], dim=-1).float() for hook in hooks}


def stream(folder, seed=0, prepend_bos=True, model=None, **options):
    for number in range(40):
        (folder / f"{number:03d}.txt").write_text("".join(chr(1000 + 30 * number + at) for at in range(30)))
    dataset = DatasetConfig(
        format="text", files=f"{folder}/*.txt", holdout_every=10, seq_len=6, prepend_bos=prepend_bos, seed=seed
    )
    tokens = TokenSource(dataset, letters, bos=1 if prepend_bos else None, eos=None)
    return ActivationChunks(model or TokensAsActivations(), tokens, chunk_size=24, seed=seed, **options)


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


def test_chunks_of_several_hooks_have_the_same_positions_and_are_those_of_each_alone(tmp_path):
    found = stream(tmp_path).chunks(1, ["a", "bcd"])
    alone = stream(tmp_path).chunk(1)
    assert torch.equal(found["a"], 2 * alone)
    assert torch.equal(found["bcd"], 4 * alone)


def test_activations_that_cannot_be_trained_on_are_an_error_of_their_hook(tmp_path):
    def check(hook, chunk_AD, what):
        if hook in bad:
            raise ConfigError("model.dtype", "float16", f"{what} at {hook} are not finite", "another")

    here, bad = stream(tmp_path, check=check), ["b"]
    found = here.chunks(0, ["a", "b"])
    assert isinstance(found["b"], ConfigError)
    assert "activations of chunk 0 at b" in str(found["b"])
    assert torch.equal(found["a"], stream(tmp_path).chunks(0, ["a"])["a"])
    bad = ["a", "b"]
    with pytest.raises(ConfigError, match="at a are not finite"):
        here.chunks(0, ["a", "b"])


def test_a_cache_keeps_hooks_apart_and_the_model_runs_once_for_those_it_lacks(tmp_path):
    cache = ActivationCache(tmp_path / "cache", 2**20, {})
    asked = []

    class Counting(TokensAsActivations):
        def activations_at(self, tokens_NS, hooks, on_progress=None):
            asked.append([*hooks])
            return super().activations_at(tokens_NS, hooks)

    first = stream(tmp_path, model=Counting(), cache=cache).chunks(0, ["a"])
    both = stream(tmp_path, model=Counting(), cache=cache).chunks(0, ["a", "bcd"])
    again = stream(tmp_path, model=Counting(), cache=cache).chunks(0, ["bcd", "a"])
    assert len(asked) == 2
    assert torch.equal(both["a"], first["a"])
    assert torch.equal(both["bcd"], 2 * first["a"])
    assert all(torch.equal(again[hook], both[hook]) for hook in both)
