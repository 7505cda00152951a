"""Contexts are parts of the text, for every kind of tokenizer, wherever a sequence begins and ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_sweeps.activations.documents import fill_sequences
from sae_sweeps.activations.quoting import STRETCH, Quoter, decode_each
from tests.activations.made_tokenizers import KINDS, SENTENCES, encoder, make_tokenizer

BOS, EOS = 1, 2
LOSSLESS = [kind for kind in KINDS if "unigram" not in kind]  # the others have no byte for an unknown character
DOCUMENTS = [*SENTENCES[:12], "漢字がいっぱい。“naïve” 🙂🙃 x", "double  blanks   and\n\n breaks "]


def quoter(kind, sequences, first=1, before=3, after=2, separators=(BOS, EOS)):
    tokenizer = make_tokenizer(kind)
    return Quoter(tokenizer, sequences, first=first, separators=separators, before=before, after=after)


def quoted(kind, documents, seq_len):
    """Yield (before, token, after) of every position that is text, in sequences as the model reads them."""
    sequences = list(fill_sequences(documents, encoder(make_tokenizer(kind)), BOS, EOS, seq_len))
    quotes = quoter(kind, sequences) if sequences else None
    for number, row in enumerate(sequences):
        for at in range(1, seq_len):
            if row[at] not in (BOS, EOS):
                yield quotes.quote(number * seq_len + at)


@pytest.mark.parametrize("seq_len", [7, 16, 64, 3 * STRETCH])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_context_is_a_part_of_its_document(kind, seq_len):
    shown = list(quoted(kind, DOCUMENTS, seq_len))
    assert len(shown) > 150
    for before, token, after in shown:
        if "\ufffd" in token:  # the only token of a character that the sequence cuts
            assert not token.strip("\ufffd")
            token = ""
        assert any(before + token + after in document for document in DOCUMENTS), (before, token, after)
    with_blank = [token for before, token, _ in shown if before and token.startswith(" ")]
    assert len(with_blank) > 50  # a token keeps its blank


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_a_sequence_join_to_its_text(kind):
    tokenizer, text = make_tokenizer(kind), "The number 7 comes before  it, and   that is all"
    ids = encoder(tokenizer)([text])[0]
    quotes = quoter(kind, [ids], first=0, separators=())
    tokens = [quotes.quote(at)[1] for at in range(len(ids))]
    assert "".join(tokens).strip() == tokenizer.decode(ids).strip()


@pytest.mark.parametrize("kind", LOSSLESS)
def test_the_tokens_of_a_quote_are_located_in_it(kind):
    ids = encoder(make_tokenizer(kind))(["The number 7 comes before  it, ü🙂🙃 x"])[0]
    quotes = quoter(kind, [ids], first=0, separators=())
    for at in range(len(ids)):
        parts, places = quotes.quote(at), quotes.locate(at)
        text = "".join(parts)
        assert text[slice(*places[0])] == parts[1]
        assert set(places) == set(range(max(-3, -at), min(3, len(ids) - at)))
        for distance, (start, stop) in places.items():
            assert text[start:stop] == quotes.quote(at + distance)[1]
        (_, stop), *others = (places[distance] for distance in sorted(places))
        for start, end in others:
            assert start == stop or text[start:end] in "ü🙂🙃"  # several tokens are one character
            stop = end
        assert (places[min(places)][0], stop) == (0, len(text))


def test_a_token_that_is_part_of_a_character_shows_the_character():
    ids = encoder(make_tokenizer("llama2"))(["a 🙂🙂 b"])[0]
    quotes = quoter("llama2", [ids], first=0, separators=(), before=9, after=9)
    shown = [quotes.quote(at) for at in range(len(ids))]
    assert [parts for parts in shown if "🙂" in parts[1]] == [("a ", "🙂", "🙂 b")] * 4 + [("a 🙂", "🙂", " b")] * 4


@pytest.mark.parametrize("kind", ["gpt2", "llama2"])
def test_a_character_that_the_sequence_cuts_is_in_no_context(kind):
    ids = encoder(make_tokenizer(kind))(["🙂🙂 b 🙂🙂"])[0]
    assert len(ids) > 10
    ids = ids[3:-1]
    quotes = quoter(kind, [ids], first=0, separators=(), before=9, after=9)
    for before, token, after in (quotes.quote(at) for at in range(len(ids))):
        assert before + token + after in "🙂🙂 b 🙂🙂" or (before, token, after) == ("", "\ufffd", "")


def test_a_context_ends_where_its_document_does():
    encode = encoder(make_tokenizer("gpt2"))
    first, second, third = encode(["one two", "three four", "five"])
    row = [BOS, *first, EOS, *second, EOS, *third]
    quotes = quoter("gpt2", [row], before=99, after=99)
    texts = ["".join(quotes.quote(at)) for at in range(1, len(row))]
    assert sorted(set(texts), key=texts.index) == ["one two", "one two</s>", "three four", "three four</s>", "five"]


@pytest.mark.parametrize("kind", KINDS)
def test_single_tokens_keep_their_blank(kind):
    tokenizer = make_tokenizer(kind)
    ids = encoder(tokenizer)(["x number"])[0]
    assert "".join(decode_each(tokenizer, encoder(tokenizer), ids)).endswith(" number")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("ab é漢🙂\n.,“"), min_size=1, max_size=40), min_size=1, max_size=6),
    st.sampled_from(LOSSLESS),
    st.integers(3, 12),
)
def test_contexts_of_any_text_are_parts_of_it(documents, kind, seq_len):
    for before, token, after in quoted(kind, documents, seq_len):
        token = token if token.strip("\ufffd") else ""
        assert any(before + token + after in document for document in documents)
