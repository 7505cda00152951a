import pytest
import torch

from sae_sweeps.activations.tokens import TokenSource
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
    seen, held_out = tokens.training(0, 108), tokens.held_out_tokens(1000)
    assert set(held_out.flatten().tolist()) == {1, 1000, 1010, 1020, 1030}
    assert not set(seen.flatten().tolist()) & {1000, 1010, 1020, 1030}


def test_a_streamed_data_set_is_in_order_and_can_step_back(tmp_path):
    tokens = source(tmp_path, streaming=True)
    whole = tokens.training(0, 200)
    assert whole[0].tolist() == [1, 1001, 1001, 1001]
    assert torch.equal(whole[108:], whole[: 200 - 108])  # the text is read again from the beginning
    for start, count in ((50, 20), (70, 10), (3, 4)):
        assert torch.equal(tokens.training(start, count), whole[start : start + count])
    assert tokens.held_out_tokens(2).tolist() == [[1, 1000, 1000, 1000]] * 2


@pytest.mark.parametrize("streaming", [False, True])
def test_text_shorter_than_one_sequence_is_refused(tmp_path, streaming):
    tokens = source(tmp_path, documents=1, seq_len=64, streaming=streaming)
    with pytest.raises(ConfigError, match="held-out text is shorter"):
        tokens.held_out_tokens(1)
    with pytest.raises(ConfigError, match="training text is shorter"):
        tokens.training(0, 1)


@pytest.mark.parametrize("streaming", [False, True])
def test_documents_that_start_with_bos_fill_sequences_without_a_bos_of_their_own(tmp_path, streaming):
    tokens = source(tmp_path, streaming=streaming, bos="document")
    rows = tokens.training(0, 36 * 10 // 4)
    assert (rows == 1).sum() == 36  # one per document
    assert (rows[:, 0] != 1).any()
    held_out = tokens.held_out_tokens(1000)
    assert sorted(held_out.flatten().tolist())[:4] == [1] * 4
