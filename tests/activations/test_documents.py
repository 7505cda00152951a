import gzip
import json

import pytest

from sae_sweeps.activations.documents import fill_sequences, locate_documents, read_documents, read_split, split_single
from sae_sweeps.activations.pieces import Piece
from sae_sweeps.activations.text_files import find_files
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError


def letters(texts):
    """Tokenize each character as one token."""
    return [[ord(letter) for letter in text] for text in texts]


def text_files(folder, *texts):
    for number, text in enumerate(texts):
        (folder / f"{number:03d}.txt").write_text(text)
    return DatasetConfig(format="text", files=f"{folder}/*.txt", holdout_every=2)


def test_sequences_start_with_bos_and_documents_end_with_eos():
    rows = list(fill_sequences(["ab", "cdefg"], letters, bos=1, eos=2, seq_len=4))
    #                  a b <eos> | c d e | f g <eos>
    assert rows == [[1, 97, 98, 2], [1, 99, 100, 101], [1, 102, 103, 2]]


def test_each_document_starts_with_bos_wherever_that_falls():
    rows = fill_sequences(["ab", "cdefg", "h"], letters, bos=1, eos=2, seq_len=3, bos_per_document=True)
    #                     <bos> a b | <bos> c d | e f g | <bos> h (dropped)
    assert list(rows) == [[1, 97, 98], [1, 99, 100], [101, 102, 103]]


def test_a_document_in_pieces_starts_with_one_bos():
    def cut(text):
        yield from (Piece(letter, is_last=at == len(text) - 1) for at, letter in enumerate(text))

    rows = fill_sequences(["abc", "de"], letters, bos=1, eos=2, seq_len=7, cut=cut, bos_per_document=True)
    assert list(rows) == [[1, 97, 98, 99, 1, 100, 101]]


def test_without_special_tokens_sequences_hold_text_only_and_the_remainder_is_dropped():
    assert list(fill_sequences(["ab", "cde"], letters, bos=None, eos=None, seq_len=2)) == [[97, 98], [99, 100]]


def test_every_format_yields_the_same_documents(tmp_path):
    import pyarrow
    from pyarrow import parquet

    texts = ["one\ntwo", "three", "ünïcode"]
    plain = text_files(tmp_path, *texts)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps({"text": text}) + "\n" for text in texts))
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "c.parquet")
    with gzip.open(tmp_path / "d.txt.gz", "wt", encoding="utf-8") as file:
        file.write(texts[0])
    assert list(read_documents(plain)) == texts
    assert list(read_documents(DatasetConfig(format="json", files=str(tmp_path / "a.jsonl")))) == texts
    assert list(read_documents(DatasetConfig(format="json", files=str(tmp_path / "b.jsonl.gz")))) == texts
    assert list(read_documents(DatasetConfig(format="parquet", files=[str(tmp_path / "c.parquet")]))) == texts
    assert list(read_documents(DatasetConfig(format="text", files=str(tmp_path / "d.txt.gz")))) == texts[:1]


def test_no_document_is_in_both_splits(tmp_path):
    dataset = text_files(tmp_path, *[f"document {number}" for number in range(9)])
    held_out, training = list(read_split(dataset, True)), list(read_split(dataset, False))
    assert held_out == [f"document {number}" for number in (0, 2, 4, 6, 8)]
    assert not set(held_out) & set(training)
    assert len(held_out) + len(training) == 9


def test_a_single_document_is_cut_in_two_after_a_line_without_loss():
    text = "".join(f"line {number} of the only document\n" for number in range(3000))
    held_out, rest = split_single(iter([text]), 20)
    assert rest + held_out == text
    assert rest.endswith("\n")
    assert len(held_out) == pytest.approx(len(text) / 20, rel=0.01)


def test_a_long_line_is_cut_between_words():
    text = "word " * 20_000
    held_out, rest = split_single(iter([text]), 20)
    assert rest + held_out == text
    assert rest.endswith(" ")


@pytest.mark.parametrize("count", [2, 10, 25])
def test_several_documents_are_never_cut(tmp_path, count):
    texts = [f"document {number} " * 50 for number in range(count)]
    assert list(split_single(iter(texts), 20)) == texts
    dataset = text_files(tmp_path, *texts)
    dataset.holdout_every = 20
    assert list(read_split(dataset, True)) == texts[::20]
    assert list(read_split(dataset, False)) == [text for index, text in enumerate(texts) if index % 20]


def test_errors_name_the_problem(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere/\*\.txt: matches no file"):
        find_files(DatasetConfig(format="text", files=f"{tmp_path}/nowhere/*.txt"))
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(
        ConfigError, match=r"a\.jsonl has no such column; the columns are body\. Fix: dataset\.text_column=body"
    ):
        list(read_documents(DatasetConfig(format="json", files=str(tmp_path / "a.jsonl"))))
    (tmp_path / "b.txt").write_bytes(b"\xff\xff\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        list(read_documents(DatasetConfig(format="text", files=str(tmp_path / "b.txt"))))
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"text " * 1000)[:-20])
    with pytest.raises(ConfigError, match=r"d\.txt\.gz: is cut off or damaged"):
        list(read_documents(DatasetConfig(format="text", files=str(tmp_path / "d.txt.gz"))))
    (tmp_path / "c.parquet").write_bytes(b"not parquet")
    with pytest.raises(ConfigError, match=r"c\.parquet: is not a Parquet file"):
        list(read_documents(DatasetConfig(format="parquet", files=str(tmp_path / "c.parquet"))))


def test_documents_know_their_file_and_row(tmp_path):
    for name in "abc":
        lines = [json.dumps({"text": f"{name} {number}" if number % 3 else None}) for number in range(7)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    dataset = DatasetConfig(format="json", files=f"{tmp_path}/*.jsonl")
    documents = list(locate_documents(dataset))
    assert [document.text for document in documents] == list(read_documents(dataset))
    assert documents[5].place == (f"{tmp_path}/b.jsonl", 2)


@pytest.mark.parametrize(
    "content",
    [b"", b" \n\t\n", b'{"text": null}\n{"text": ""}', b"[]", b"\xef\xbb\xbf", b'"  "', b"null\nnull"],
    ids=["empty", "blanks", "nulls", "array", "bom", "string", "rows"],
)
def test_a_text_without_documents_is_one_error_that_names_the_files(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    dataset = DatasetConfig(format="json", files=f"{tmp_path}/*.jsonl")
    with pytest.raises(ConfigError, match=r"there is no document with text in .*a\.jsonl"):
        list(read_documents(dataset))
    (tmp_path / "b.jsonl").write_text('{"text": "word"}')
    assert list(read_documents(dataset)) == ["word"]


def test_empty_files_of_every_format_are_skipped(tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["word"]}), tmp_path / "b.parquet")
    (tmp_path / "b.txt").write_text("word")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"word"))
    for name, format in (("a.parquet", "parquet"), ("a.txt", "text"), ("a.txt.gz", "text")):
        (tmp_path / name).write_bytes(b"")
        dataset = DatasetConfig(format=format, files=f"{tmp_path}/*{name[1:]}")
        assert list(read_documents(dataset)) == ["word"]


def test_a_file_without_the_column_among_others_is_warned_of(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text('{"text": "word"}')
    (tmp_path / "b.jsonl").write_text('{"body": "more"}')
    assert list(read_documents(DatasetConfig(format="json", files=f"{tmp_path}/*.jsonl"))) == ["word"]
    assert f"{tmp_path}/b.jsonl has no column 'text'" in caplog.text


def test_a_text_whose_first_rows_lack_the_column_is_refused_without_reading_on(tmp_path, monkeypatch):
    monkeypatch.setattr("sae_sweeps.activations.documents.ROWS_WITHOUT_COLUMN", 3)
    rows = ['{"body": "x", "n": 1}'] * 3
    (tmp_path / "a.jsonl").write_text("\n".join([*rows, "not JSON"]))
    with pytest.raises(ConfigError, match=r"no such column; the columns are body, n\. Fix: dataset\.text_column=body$"):
        list(read_documents(DatasetConfig(format="json", files=f"{tmp_path}/a.jsonl")))
    (tmp_path / "a.jsonl").write_text("\n".join([*rows[:2], '{"text": "word"}', rows[0]]))
    assert list(read_documents(DatasetConfig(format="json", files=f"{tmp_path}/a.jsonl"))) == ["word"]
