"""Positions are left out by the token that they hold, wherever it stands, and by one rule for all that read a text."""

import pytest
import torch

from sae_sweeps.activations.chunks import ActivationChunks
from sae_sweeps.activations.positions import Positions
from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.activations.tokens import TokenSource
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError
from tests.activations.test_chunks import TokensAsActivations
from tests.conftest import composed

TOKENS_NS = torch.tensor([[0, 5, 0, 7], [0, 7, 8, 9], [0, 0, 0, 0]])


class Tokenizer:
    """A tokenizer of 12 tokens: special are 0 (BOS and separator), 1 (padding), 2 (unknown text) and 11 (a role)."""

    def __init__(self, **roles):
        self.unk_token_id, self.all_special_ids = 2, [0, 1, 2, 11]
        self.special_tokens_map = {"bos_token": "<s>", "pad_token": "<pad>", "unk_token": "<unk>", **roles}

    def get_vocab(self):
        return {"<s>": 0, "<pad>": 1, "<unk>": 2, "special": 3, **{f"Ġw{at}": at for at in range(4, 12)}}

    def convert_tokens_to_ids(self, tokens):
        return [self.get_vocab()[token] for token in tokens]

    def __call__(self, text, **options):
        return {"input_ids": [self.get_vocab()[f"Ġ{word}"] for word in text.split()]}


@pytest.mark.parametrize(
    ("exclude", "prepend_bos", "expected"),
    [
        ("special", True, [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]]),
        ("special", False, [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]]),
        ("none", True, [[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]),
        (None, False, [[1, 1, 1, 1]] * 3),
        ([7], True, [[0, 1, 1, 0], [0, 0, 1, 1], [0, 1, 1, 1]]),
        ([0, "Ġw7", " w8"], False, [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]),
        (5, True, [[0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]),
    ],
)
def test_positions_are_left_out_by_token(exclude, prepend_bos, expected):
    dataset = DatasetConfig(format="text", exclude=exclude, prepend_bos=prepend_bos)
    positions = Positions.from_settings(dataset, Tokenizer(), (0, 0))
    assert positions.find(TOKENS_NS).int().tolist() == expected
    left_out = TOKENS_NS.numel() - 3 * prepend_bos - sum(map(sum, expected))
    assert positions.count_left_out(TOKENS_NS) == left_out


def test_special_tokens_are_those_of_the_tokenizer_and_the_model_but_unknown_text_is_data():
    dataset = DatasetConfig(format="text")
    assert Positions.from_settings(dataset, Tokenizer(), (None, 9)).excluded == (0, 1, 9, 11)
    one_for_both = Tokenizer(eos_token="<unk>")  # as in GPT-2
    assert 2 in Positions.from_settings(dataset, one_for_both).excluded


@pytest.mark.parametrize("exclude", [12, [0, 99], ["w4 w5"], [""]])
def test_a_token_that_the_tokenizer_does_not_have_is_an_error(exclude):
    with pytest.raises(ConfigError, match=r"^dataset\.exclude=.*the tokenizer"):
        Positions.from_settings(DatasetConfig(format="text", exclude=exclude), Tokenizer())


SEPARATOR = 1


def chunks(folder, *, words, excluded=(SEPARATOR,), streaming=False, seed=0, chunk_size=24):
    """Chunks of a text of 200 documents of `words` tokens, each followed by a separator that is also the BOS."""
    for number in range(200):
        (folder / f"{number:03d}.txt").write_text("".join(chr(1000 + words * number + at) for at in range(words)))
    dataset = DatasetConfig(
        format="text", files=f"{folder}/*.txt", holdout_every=10, seq_len=6, streaming=streaming, seed=seed
    )

    def encode(texts):
        return [[ord(letter) for letter in text] for text in texts]

    tokens = TokenSource(dataset, encode, bos=SEPARATOR, eos=SEPARATOR)
    positions = Positions(excluded=excluded, first=1)
    return ActivationChunks(TokensAsActivations(), tokens, chunk_size=chunk_size, seed=seed, positions=positions)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("words", [1, 3, 29])
def test_chunks_are_full_and_without_separators(tmp_path, words, streaming):
    stream = chunks(tmp_path, words=words, streaming=streaming)
    seen = torch.cat([stream.chunk(index)[:, 0] for index in range(3)])
    assert len(seen) == 3 * 24
    assert (seen != SEPARATOR).all()
    assert len(seen.unique()) == len(seen)  # no activation twice: chunks take sequences one after another
    share = 1 / (words + 1)
    assert stream.count_left_out(72) == pytest.approx(share * 72 / (1 - share), rel=0.5, abs=6)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_chunk_depends_on_the_text_and_its_index_alone(tmp_path, streaming):
    here, there = (chunks(tmp_path, words=3, streaming=streaming) for _ in range(2))
    one_by_one = [here.chunk(index) for index in range(4)]
    assert torch.equal(there.chunk(3), one_by_one[3])  # after a resume
    assert torch.equal(there.chunk(1), one_by_one[1])
    assert there.count_left_out(48) == here.count_left_out(48) > 0
    assert there.count_left_out(0) == 0


def test_with_nothing_excluded_only_the_prepended_bos_is_left_out(tmp_path):
    stream = chunks(tmp_path, words=3, excluded=())
    chunk_AD = stream.chunk(0)
    assert SEPARATOR in chunk_AD[:, 0]
    assert 0 not in chunk_AD[:, 1]
    assert stream.count_left_out(10_000) == 0


def test_chunks_without_excluded_tokens_are_those_of_no_rule(tmp_path):
    ruled, free = chunks(tmp_path, words=29, excluded=(7,)), chunks(tmp_path, words=29, excluded=())
    for index in (2, 0, 5):
        assert torch.equal(ruled.chunk(index), free.chunk(index))
    assert ruled.count_left_out(1000) == 0


def test_a_text_of_excluded_tokens_alone_is_an_error(tmp_path):
    stream = chunks(tmp_path, words=3, excluded=tuple(range(2000)))
    with pytest.raises(ConfigError, match=r"^dataset\.exclude=special: leaves out every position of 5 sequences"):
        stream.chunk(0)


@pytest.fixture(scope="module")
def source(tiny_model, tmp_path_factory):
    """Activations of 400 documents of some words, so that every sequence has separators."""
    folder = tmp_path_factory.mktemp("short")
    for number in range(400):
        (folder / f"{number:03d}.txt").write_text("the people of a great nation"[: 8 + number % 20])
    words = [f"model.name={tiny_model}", "model.hook=blocks.1.hook_resid_pre", "dataset=text", "dataset.seq_len=16"]
    words.append("dataset.holdout_every=4")
    return lambda *more: ActivationSource(composed(*words, f"dataset.files={folder}/*.txt", *more), torch.device("cpu"))


def test_the_evaluation_leaves_out_separators_and_measures_as_many_activations(source):
    special, all_of_them = source().held_out(60), source("dataset.exclude=none").held_out(60)
    end = source().model.eos
    assert (special.tokens_A != end).all()
    assert end in all_of_them.tokens_A
    assert special.left_out > 0 == all_of_them.left_out
    assert 60 <= len(special.acts_AD) < 60 + 15
    assert len(special.acts_AD) == len(special.tokens_A) == special.is_data_NS.sum()
    assert special.ce != all_of_them.ce


def test_replacing_activations_by_themselves_changes_nothing(source):
    one = source()
    data = one.held_out(60)
    assert data.cross_entropy_with(one.model, data.acts_AD) == pytest.approx(data.ce, abs=1e-5)
    doubled = data.cross_entropy_with(one.model, 2 * data.acts_AD)
    assert doubled != pytest.approx(data.ce, abs=1e-3)


@pytest.mark.parametrize("exclude", ["special", "none", "[5,6]"])
def test_studies_read_the_positions_that_the_evaluation_counts(source, exclude):
    one = source(f"dataset.exclude={exclude}")
    data = one.held_out(60)
    read = list(one.held_out_text(60))
    assert torch.equal(torch.cat([tokens for tokens, _ in read]), data.tokens_NS)
    assert torch.allclose(torch.cat([x_BD for _, x_BD in read]), data.acts_AD, atol=1e-5)
