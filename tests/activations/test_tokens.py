import pytest
import torch

from sae_sweeps.activations.pieces import Piece
from sae_sweeps.activations.tokens import TokenSource
from sae_sweeps.activations.units import find_units
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError
from tests.activations.test_documents import letters


def source(folder, documents=40, **options):
    for number in range(documents):
        (folder / f"{number:03d}.txt").write_text(chr(1000 + number) * 9)
    settings = {"format": "text", "files": f"{folder}/*.txt", "holdout_every": 10, "seq_len": 4, **options}
    return TokenSource(DatasetConfig(**settings), letters, bos=1, eos=None)


def test_each_epoch_visits_every_sequence_once_in_its_own_order(tmp_path):
    tokens = source(tmp_path)
    size = 36 * 9 // 3
    first, second = tokens.training(0, size), tokens.training(size, size)
    assert first.shape == (size, 4)
    assert (first[:, 0] == 1).all()
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)


def test_any_range_of_sequences_can_be_recomputed(tmp_path):
    whole = source(tmp_path).training(0, 400)
    again = source(tmp_path)
    for start, count in ((390, 10), (0, 7), (100, 50), (7, 100)):
        assert torch.equal(again.training(start, count), whole[start : start + count])


def test_another_seed_is_another_order(tmp_path):
    assert not torch.equal(source(tmp_path).training(0, 50), source(tmp_path, seed=1).training(0, 50))


def test_training_and_held_out_share_no_document(tmp_path):
    tokens = source(tmp_path)
    seen, held_out = tokens.training(0, 108), tokens.held_out(1000).tokens_NS
    assert set(held_out.flatten().tolist()) == {1, 1000, 1010, 1020, 1030}
    assert not set(seen.flatten().tolist()) & {1000, 1010, 1020, 1030}


def test_a_streamed_data_set_is_in_order_and_can_step_back(tmp_path):
    tokens = source(tmp_path, streaming=True)
    whole = tokens.training(0, 200)
    assert whole[0].tolist() == [1, 1001, 1001, 1001]
    assert torch.equal(whole[108:], whole[: 200 - 108])  # the text is read again from the beginning
    for start, count in ((50, 20), (70, 10), (3, 4)):
        assert torch.equal(tokens.training(start, count), whole[start : start + count])
    assert tokens.held_out(2).tokens_NS.tolist() == [[1, 1000, 1000, 1000]] * 2


@pytest.mark.parametrize("streaming", [False, True])
def test_text_shorter_than_one_sequence_is_refused(tmp_path, streaming):
    tokens = source(tmp_path, documents=1, seq_len=64, streaming=streaming)
    with pytest.raises(ConfigError, match="held-out text is shorter"):
        tokens.held_out(1)
    with pytest.raises(ConfigError, match="training text is shorter"):
        tokens.training(0, 1)


@pytest.mark.parametrize("streaming", [False, True])
def test_documents_that_start_with_bos_fill_sequences_without_a_bos_of_their_own(tmp_path, streaming):
    tokens = source(tmp_path, streaming=streaming, bos="document")
    rows = tokens.training(0, 36 * 10 // 4)
    assert (rows == 1).sum() == 36  # one per document
    assert (rows[:, 0] != 1).any()
    held_out = tokens.held_out(1000).tokens_NS
    assert sorted(held_out.flatten().tolist())[:4] == [1] * 4


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("bos", ["sequence", "document"])
def test_held_out_positions_know_their_document(tmp_path, streaming, bos):
    """Each document repeats a letter of its own, so that tokens show which document they are of."""
    lengths = [1 + number * 7 % 30 for number in range(60)]  # parts of a sequence, and several sequences
    for number, length in enumerate(lengths):
        (tmp_path / f"{number:03d}.txt").write_text(chr(1000 + number) * length)

    def cut(text):
        half = len(text) // 2
        yield from [Piece(text)] if half == 0 else [Piece(text[:half], is_last=False), Piece(text[half:])]

    settings = {"format": "text", "files": f"{tmp_path}/*.txt", "holdout_every": 2, "seq_len": 8}
    dataset = DatasetConfig(**settings, streaming=streaming, bos=bos)
    tokens = TokenSource(dataset, letters, bos=1, eos=None if bos == "document" else 2, cut=cut)
    for count in (1000, 9):
        tokens_NS, document_NS = tokens.held_out(count)
        assert document_NS.shape == tokens_NS.shape
        is_letter = tokens_NS >= 1000
        assert ((tokens_NS - 1000) // 2 == document_NS)[is_letter].all()
        for row, documents in zip(tokens_NS.tolist(), document_NS.tolist(), strict=True):
            assert all(documents[at] == documents[at + 1] for at in range(7) if row[at] == 1), "BOS: the next one's"
            assert all(documents[at] == documents[at - 1] for at in range(1, 8) if row[at] == 2 and row[at - 1] != 1)


def test_few_documents_are_a_sample_of_sequences():
    tokens_NS = torch.arange(12).reshape(3, 4)
    is_data_NS = torch.ones(3, 4, dtype=torch.bool)
    is_data_NS[:, 0] = False
    many_NS = torch.arange(100, 112).reshape(3, 4).div(0.5).long()
    few = find_units(tokens_NS, many_NS, is_data_NS)
    assert (few.name, few.count) == ("sequence", 3)
    assert few.unit_NS.tolist() == [[0] * 4, [1] * 4, [2] * 4]
    wide_NS = torch.arange(30).repeat(3, 1)
    documents = find_units(wide_NS, 7 * wide_NS + 5, wide_NS > 2)
    assert (documents.name, documents.count) == ("document", 27)
    assert documents.unit_NS[0, 3:].tolist() == list(range(27))
    changed_NS = wide_NS.clone()
    changed_NS[1, 5] = 6
    others = (
        find_units(changed_NS, 7 * wide_NS + 5, wide_NS > 2),
        find_units(wide_NS, 7 * wide_NS + 5, wide_NS > 3),
        find_units(wide_NS, 7 * changed_NS + 5, wide_NS > 2),
    )
    assert len({documents.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert documents.fingerprint == find_units(wide_NS, 9 * wide_NS, wide_NS > 2).fingerprint


def test_a_document_that_has_not_ended_is_known(tmp_path):
    (tmp_path / "0.txt").write_text("a" * 1_200_000)

    def cut(text):
        yield from (Piece(text[at : at + 100_000], is_last=at == 1_100_000) for at in range(0, len(text), 100_000))

    dataset = DatasetConfig(format="text", files=f"{tmp_path}/*.txt", seq_len=8, streaming=True)
    tokens = TokenSource(dataset, letters, bos=1, eos=2, cut=cut)
    assert tokens.held_out(2).document_NS.tolist() == [[0] * 8] * 2
