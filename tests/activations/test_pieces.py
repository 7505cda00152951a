"""Pieces of a large document have exactly the tokens of the whole, for every kind of tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from sae_sweeps.activations import pieces
from sae_sweeps.activations.documents import fill_sequences
from sae_sweeps.activations.pieces import Cutter, cut_nothing, make_cutter
from tests.activations.made_tokenizers import KINDS, SENTENCES, encoder, make_tokenizer

CUT = [kind for kind in KINDS if kind != "unigram-whole"]
TEXT = "".join(SENTENCES)
TEXTS = {
    "sentences": TEXT,
    "runs of blanks": TEXT.replace(" ", "   "),
    "pairs of blanks and breaks": TEXT.replace(" ", "  ").replace("\n", "\n\n"),
    "a line for each word": TEXT.replace(" ", "\n"),
    "windows line ends": TEXT.replace("\n", "\r\n"),
    "no blanks": "".join(TEXT.split()),
    "one letter": "a" * 3000,
    "only blanks": " " * 3000,
    "blanks before each letter": " a" * 1500,
    "digits": "1234567890 " * 300,
    "marks": "e\u0301 \u0301 " * 500,
    "leading blanks": "  " + TEXT + "  ",
    "special tokens": "<s> in </s>mid text<unk> " * 100,
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "LARGE", 200)
    monkeypatch.setattr(pieces, "PIECE", 64)


def tokens_of(parts, encode):
    ids = []
    for part in parts:
        ids += encode([part.text])[0][part.skip :]
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    return ids


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_have_the_tokens_of_the_whole(kind, name):
    tokenizer = make_tokenizer(kind)
    encode = encoder(tokenizer)
    parts = list(make_cutter(tokenizer, encode)(TEXTS[name]))
    assert tokens_of(parts, encode) == encode([TEXTS[name]])[0]
    if kind in CUT and name in ("sentences", "runs of blanks", "windows line ends", "digits"):
        assert len(parts) > 10
        assert max(len(part.text) for part in parts) <= 200
    if name in ("no blanks", "one letter", "only blanks"):
        assert len(parts) == 1


words = st.text(st.sampled_from("ab  \n\t\r1.,_é漢“\u0301\u200d\u00a0\u2581<s>/'"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=40, max_size=120), st.sampled_from(KINDS))
def test_pieces_of_any_text_have_the_tokens_of_the_whole(parts, kind):
    tokenizer, text = make_tokenizer(kind), "".join(parts)
    encode = encoder(tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LARGE", 40)
        patch.setattr(pieces, "PIECE", 8)
        assert tokens_of(list(make_cutter(tokenizer, encode)(text)), encode) == encode([text])[0]


def test_tokens_that_reach_across_a_blank_prevent_cuts():
    tokenizer = make_tokenizer.__wrapped__("gpt2")
    tokenizer.add_tokens([AddedToken("number 7", normalized=False)])
    assert make_cutter(tokenizer, encoder(tokenizer)) is not cut_nothing  # line breaks are left
    text = " ".join(["number 7"] * 100)
    (whole,) = make_cutter(tokenizer, encoder(tokenizer))(text)
    assert whole.text == text


def test_a_token_that_takes_the_blank_after_it_is_not_cut_from_it():
    tokenizer = make_tokenizer.__wrapped__("gpt2")
    tokenizer.add_tokens([AddedToken("word", rstrip=True, normalized=False)])
    encode = encoder(tokenizer)
    text = "word and " * 100
    assert tokens_of(list(make_cutter(tokenizer, encode)(text)), encode) == encode([text])[0]


def test_a_tokenizer_without_a_backend_is_not_cut():
    assert make_cutter(object(), lambda texts: [[]]) is cut_nothing


def test_sequences_are_the_same_with_and_without_pieces():
    tokenizer = make_tokenizer("llama2")
    encode = encoder(tokenizer)
    cut = make_cutter(tokenizer, encode)
    assert isinstance(cut, Cutter)
    documents = [TEXT, "short", TEXT[::-1]]
    whole, pieced = (list(fill_sequences(documents, encode, 1, 2, 16, each)) for each in (cut_nothing, cut))
    assert pieced == whole
