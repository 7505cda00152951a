"""Values of rows: strings are text, null is an empty document, and anything else is refused with its place."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_sweeps.activations.documents import read_documents
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError


def read(file, format="json", **options):
    return list(read_documents(DatasetConfig(format=format, files=str(file), **options)))


def written(folder, content, name="a.jsonl"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return file


BAD_VALUES = [
    ("5", "a number"),
    ("5.5", "a number"),
    ("NaN", "NaN"),
    ("-Infinity", "a number"),
    ("true", "a boolean"),
    ('["a"]', "a list"),
    ('{"a": "b"}', "an object"),
    ("[]", "a list"),
    ("0", "a number"),
    ("false", "a boolean"),
]


@pytest.mark.parametrize(("value", "kind"), BAD_VALUES)
def test_a_value_that_is_no_string_is_refused_with_file_row_and_type(tmp_path, value, kind):
    file = written(tmp_path, f'{{"text": "fine"}}\n\n{{"text": {value}, "n": 1, "title": "x"}}\n')
    with pytest.raises(ConfigError) as caught:
        read(file)
    assert f"{file}, row 1 (line 3) holds {kind} in this column" in str(caught.value)
    assert str(caught.value).endswith("choose a column of strings: dataset.text_column=title")


@pytest.mark.parametrize(
    "absent", ['{"id": 1}', '{"text": null}', '{"text": ""}', '{"text": " \\n"}', "null", "{}", ""]
)
def test_rows_without_text_are_left_out(tmp_path, absent):
    lines = [f'{{"text": "document {n}"}}' if n % 2 else absent for n in range(40)]
    assert read(written(tmp_path, "\n".join(lines))) == [f"document {n}" for n in range(1, 40, 2)]


@pytest.mark.parametrize(
    "content",
    [
        '{"text": "a"}\n{"text": "b"}\n',
        '{"text": "a"}\r\n\r\n{"text": "b"}',
        '\ufeff{"text": "a"}\n{"text": "b"}',
        '{"text": "a"}{"text": "b"}',
        ' {"text": "a"} \t {"text": "b"} \n',
        '[{"text": "a"}, {"text": "b"}]',
        '\n\n[\n  {"text": "a"},\n  {"text": "b"}\n]\n',
        '\ufeff[{"text": "a"},{"text": null},{"text": "b"}]',
        '{\n  "text": "a",\n  "n": {\n  }\n}\n{\n  "text": "b"\n}',
        '{"text": "a", "n": 1}\n{"text": "b", "n": "one", "m": {"x": [NaN, 1e999, ' + "1" * 5000 + "]}}",
        '["a", "b"]',
        '"a"\n"b"',
    ],
)
def test_json_is_read_however_it_is_laid_out(tmp_path, content):
    assert read(written(tmp_path, content)) == ["a", "b"]


def test_strings_are_taken_as_they_are(tmp_path):
    texts = ["2024-03-01", "12:30", "5", "null", "a\x00b", "one\u2028two\x85three\x0cfour\x1efive", "\ufeffmark", " a "]
    lines = "\n".join(json.dumps({"text": text}, ensure_ascii=number % 2 == 0) for number, text in enumerate(texts))
    assert read(written(tmp_path, lines)) == texts


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"text": "b"', "is not JSON"),
        ('{"text": "b}', "is not JSON"),
        ("{'text': 'b'}", "is not JSON"),
        ("text", "is not JSON"),
        ('{"text": "a\nb"}', "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"text": ' * 20_000, "is not JSON|nested too deeply"),
        (b'{"text": "caf\xe9"}', "is not UTF-8 text"),
        (b"\x00\x00\x00", "is not JSON"),
    ],
)
def test_a_line_that_is_not_json_is_refused_with_file_and_row(tmp_path, bad, reason):
    good = b'{"text": "a"}\n'
    file = written(tmp_path, good + (bad if isinstance(bad, bytes) else bad.encode()) + b"\n" + good)
    with pytest.raises(ConfigError, match=rf"a\.jsonl: row 1 \(line 2\) .*({reason})|a\.jsonl: row 1 .*({reason})"):
        read(file)


def test_a_bad_item_of_an_array_is_refused_with_its_number(tmp_path):
    for content in ('[{"text": "a"}, 5]', '[{"text": "a"}, {"text": 5}]', '[{"text": "a"}, {"te', '[{"text": "a"} {}]'):
        with pytest.raises(ConfigError, match="row 1"):
            read(written(tmp_path, content))
    with pytest.raises(ConfigError, match="row 0: is a list, not an object"):
        read(written(tmp_path, '[["a"]]'))


def test_rows_that_are_strings_have_no_other_column(tmp_path):
    with pytest.raises(ConfigError, match=r"row 0 \(line 1\): is a string, not an object with columns"):
        read(written(tmp_path, '"a"\n"b"'), text_column="body")


def test_half_a_surrogate_pair_is_replaced_with_a_warning(tmp_path, caplog):
    lines = [r'{"text": "a\ud83d b"}', r'{"text": "\ude00\ud83d"}', r'{"text": "smile \ud83d\ude00"}']
    assert read(written(tmp_path, "\n".join(lines))) == ["a\ufffd b", "\ufffd\ufffd", "smile \U0001f600"]
    assert "a.jsonl, row 0 (line 1) has half a surrogate pair" in caplog.text


def test_a_byte_order_mark_at_the_start_of_a_text_file_is_no_text(tmp_path):
    assert read(written(tmp_path, "\ufeffone \ufefftwo"), "text") == ["one \ufefftwo"]
    assert read(written(tmp_path, "a\x00b\r\nc"), "text") == ["a\x00b\r\nc"]


def test_a_text_file_that_is_not_utf8_is_refused_with_the_byte(tmp_path):
    for data, at in ((b"abc\xff", 3), (b"\xed\xa0\xbd", 0), (b"ok \xe2\x80", 3)):
        with pytest.raises(ConfigError, match=rf"a\.jsonl: is not UTF-8 text \(.*, at byte {at}\)"):
            read(written(tmp_path, data), "text")


STRINGS = {
    "string": pa.array(["a", None, "b"], pa.string()),
    "large": pa.array(["a", None, "b"], pa.large_string()),
    "view": pa.array(["a", None, "b"], pa.string_view()),
    "dictionary": pa.array(["a", None, "b"]).dictionary_encode(),
}
OTHERS = [
    pa.array([1, 2, 3]),
    pa.array([["a"], None, ["b"]]),
    pa.array([b"a", None, b"b"], pa.binary()),
    pa.array([{"x": "a"}] * 3),
    pa.array([True, None, False]),
    pa.array([1.5, None, float("nan")]),
    pa.array([0, 1, 2], pa.timestamp("s")),
]


@pytest.mark.parametrize("kind", STRINGS)
def test_parquet_columns_of_strings_are_read(tmp_path, kind):
    pq.write_table(pa.table({"other": OTHERS[3], "text": STRINGS[kind]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", "parquet") == ["a", "b"]


@pytest.mark.parametrize("values", OTHERS, ids=lambda values: str(values.type)[:12])
def test_parquet_columns_of_anything_else_are_refused(tmp_path, values):
    table = pa.table({"id": OTHERS[0], "text": values, "body": STRINGS["large"], "title": STRINGS["string"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"this column holds .*Fix: dataset\.text_column=body \(other columns of str"):
        read(tmp_path / "a.parquet", "parquet")
    pq.write_table(table.select(["id", "text"]), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="Fix: choose files with a column of strings"):
        read(tmp_path / "a.parquet", "parquet")


def test_parquet_files_may_differ_in_other_columns(tmp_path):
    for number, other in enumerate(OTHERS):
        pq.write_table(pa.table({"text": ["x", str(number), None], "other": other}), tmp_path / f"{number}.parquet")
    pq.write_table(pa.table({"text": pa.nulls(2)}), tmp_path / "9.parquet")
    expected = [text for number in range(len(OTHERS)) for text in ("x", str(number))]
    assert read(tmp_path / "*.parquet", "parquet") == expected


def test_parquet_strings_that_are_not_utf8_are_refused_with_the_row(tmp_path):
    bad = pa.array([b"a", b"\xed\xa0\xbd", b"b"], pa.binary()).cast(pa.string(), safe=False).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet: row 1 is not UTF-8"):
        read(tmp_path / "a.parquet", "parquet")


def read_or_refuse(file, format="json"):
    """Return the documents of a file, or the message of the one error that is expected."""
    try:
        return read(file, format), None
    except ConfigError as error:
        return None, str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "a"]) | st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(json_values, max_size=5), as_array=st.booleans(), ascii_only=st.booleans())
def test_any_json_values_as_rows_give_the_strings_there_or_one_error(tmp_path_factory, rows, as_array, ascii_only):
    dump = json.dumps if ascii_only else lambda value: json.dumps(value, ensure_ascii=False)
    file = written(tmp_path_factory.mktemp("rows"), dump(rows) if as_array else "\n".join(map(dump, rows)))
    if not as_array and len(rows) == 1 and isinstance(rows[0], list):
        rows = rows[0]  # one line with an array is an array of rows
    values = [row.get("text") if isinstance(row, dict) else row for row in rows]
    texts, refusal = read_or_refuse(file)
    are_strings = all(value is None or isinstance(value, str) for value in values)
    expected = [value for value in values if value and value.strip()] if are_strings else None
    if refusal is None:
        assert texts == expected
    else:
        assert "\n" not in refusal
        assert not expected


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=300) | st.text(max_size=100).map(str.encode),
    magic=st.sampled_from(
        [b"", b"\x1f\x8b\x08", b"BZh91AY&SY", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1"]
    ),
    format=st.sampled_from(["text", "json", "parquet"]),
)
def test_any_bytes_as_a_file_are_text_or_one_error(tmp_path_factory, data, magic, format):
    file = tmp_path_factory.mktemp("bytes") / "a"
    file.write_bytes(magic + data)
    texts, refusal = read_or_refuse(file, format)
    if refusal is not None:
        assert "dataset." in refusal
    else:
        assert format != "parquet"
        if format == "text" and not magic:
            assert texts == [data.decode().removeprefix("\ufeff")]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_to_a_parquet_file_is_read_or_one_error(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("damage") / "a.parquet"
    texts = [f"document {number}" for number in range(50)]
    pq.write_table(pa.table({"text": texts, "n": list(range(50))}), file)
    whole = file.read_bytes()
    at, size = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 8))
    file.write_bytes(whole[:at] + data.draw(st.just(b"") | st.binary(max_size=8)) + whole[at + size :])
    texts, refusal = read_or_refuse(file, "parquet")
    assert all(isinstance(text, str) for text in texts) if refusal is None else "\n" not in refusal
