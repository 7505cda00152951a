"""Records: JSON files that say what they belong to, and prove that they are unchanged."""

import contextlib
import json
import logging
import shutil

import pytest

from sae_sweeps.runtime import records
from sae_sweeps.runtime.records import SEAL, DamagedError, load_record, matches, read_record, write_record
from tests.damage import damaged, examples

CONTENT = {"name": "a", "values": {8: [1.5, None, -0.0], 16: [1e22]}, "text": "ü \ud800 \u2028", "nan": float("nan")}
READ = {"name": "a", "values": {"8": [1.5, None, -0.0], "16": [1e22]}, "text": "ü \ud800 \u2028", "nan": None}
SHAPE = {"name": str, "values": dict}


@pytest.fixture
def file(tmp_path):
    write_record(tmp_path / "one" / "x.json", CONTENT)
    return tmp_path / "one" / "x.json"


def test_a_record_is_read_as_it_was_written(file):
    assert load_record(file, SHAPE) == READ
    write_record(file, load_record(file, SHAPE))
    assert load_record(file, SHAPE) == READ
    file.write_text(json.dumps(json.loads(file.read_text()), indent=7))  # another layout is no damage
    assert load_record(file, SHAPE) == READ


def test_a_missing_record_is_none_without_a_word(tmp_path, caplog):
    assert read_record(tmp_path / "x.json", SHAPE) is None
    assert read_record(tmp_path / "x.json" / "y.json", SHAPE) is None
    assert caplog.text == ""


def test_no_damage_changes_what_a_record_says(file):
    whole = file.read_bytes()

    @examples(300)
    def check(how):
        file.write_bytes(damaged(whole, how))
        with contextlib.suppress(DamagedError):
            found = load_record(file, SHAPE)
            assert {name: found[name] for name in READ} == READ

    check()


def test_the_record_of_another_is_refused_unless_it_may_be_a_copy(file, tmp_path):
    for other in (tmp_path / "two" / "x.json", tmp_path / "one" / "y.json"):
        other.parent.mkdir(exist_ok=True)
        shutil.copy(file, other)
        with pytest.raises(DamagedError, match=r"^belongs to another \(one/x\.json\)$"):
            load_record(other, SHAPE)
        assert load_record(other, SHAPE, "") == READ
        assert load_record(other, SHAPE, "one/x.json") == READ


@pytest.mark.parametrize("seal", [None, 3, {}, {"of": "one/x.json"}, {"of": 3, "sha256": "x"}])
def test_a_seal_that_is_none_is_refused(file, seal):
    file.write_text(json.dumps({**json.loads(file.read_text()), SEAL: seal}))
    with pytest.raises(DamagedError, match="its seal is none"):
        load_record(file, SHAPE)


def test_a_record_whose_seal_lost_its_name_is_of_no_earlier_version(file):
    file.write_text(file.read_text().replace(f'"{SEAL}"', '"sea "'))
    with pytest.raises(DamagedError, match="has no seal"):
        load_record(file, SHAPE)


def test_the_checksum_covers_the_owner(file):
    content = json.loads(file.read_text())
    content[SEAL]["of"] = "two/x.json"
    (file.parent.parent / "two").mkdir()
    other = file.parent.parent / "two" / "x.json"
    other.write_text(json.dumps(content))
    with pytest.raises(DamagedError, match="its checksum does not match"):
        load_record(other, SHAPE)


def test_a_record_of_an_earlier_version_is_checked_by_its_shape(file):
    file.write_text(json.dumps(READ))
    assert load_record(file, SHAPE) == READ
    file.write_text(json.dumps({"name": 3}))
    with pytest.raises(DamagedError, match="does not hold the entries"):
        load_record(file, SHAPE)


@pytest.mark.parametrize("content", [b"", b"{", b"9" * 5000, b"[" * 100_000, b"\xff\xfe\xff", b"null", b"[]", b'"x"'])
def test_a_damaged_record_is_one_warning_per_process(file, content, caplog):
    file.write_bytes(content)
    records.warn_damaged.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert read_record(file, SHAPE) is None
        assert read_record(file, SHAPE) is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{file} ")
    assert len(line.splitlines()) == 1


def test_a_folder_in_the_place_of_a_record_is_damage(tmp_path):
    (tmp_path / "x.json").mkdir()
    with pytest.raises(DamagedError, match=r"cannot be read \(Is a directory\)"):
        load_record(tmp_path / "x.json", SHAPE)


@pytest.mark.parametrize("value", [True, 2**63, -(2**63), 10**400, "3", None])
def test_numbers_that_fit_no_tensor_match_no_number(value):
    assert not matches(value, int)
    assert not matches(value, float)
