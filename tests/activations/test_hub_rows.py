"""Data sets on the hub, and folders of that form: the same check of values, and one error for each failure."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sae_sweeps.activations import hub_rows
from sae_sweeps.activations.documents import locate_documents, read_documents
from sae_sweeps.activations.hub_rows import check_local_hub_name, explain_failure
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_local_folder_is_loaded_like_a_hub_data_set(tmp_path, streaming):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": f"row {number}"}) + "\n" for number in range(5)))
    dataset = DatasetConfig(format="hub", name=str(folder), streaming=streaming)
    assert list(read_documents(dataset)) == [f"row {number}" for number in range(5)]


def test_a_hub_data_set_that_cannot_be_loaded_is_one_error(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"dataset\.name=nobody/nothing: cannot be loaded"):
        list(read_documents(DatasetConfig(format="hub", name="nobody/nothing", streaming=True)))


def folder_of(path, **columns):
    path.mkdir()
    pq.write_table(pa.table(columns), path / "train.parquet")
    return DatasetConfig(format="hub", name=str(path), streaming=True)


@pytest.mark.parametrize("streaming", [False, True])
def test_other_columns_are_not_decoded(tmp_path, streaming):
    picture = {"text": {"dtype": "string", "_type": "Value"}, "other": {"_type": "Image"}}
    schema = pa.schema(
        {"text": pa.string(), "other": pa.struct({"bytes": pa.binary(), "path": pa.string()})},
        metadata={"huggingface": json.dumps({"info": {"features": picture}})},
    )
    (tmp_path / "set").mkdir()
    rows = {"text": ["one", None, "two"], "other": [{"bytes": b"no picture", "path": None}] * 3}
    pq.write_table(pa.table(rows, schema=schema), tmp_path / "set" / "train.parquet")
    dataset = DatasetConfig(format="hub", name=str(tmp_path / "set"), streaming=streaming)
    assert list(read_documents(dataset)) == ["one", "two"]


@pytest.mark.parametrize(
    ("values", "held"),
    [
        (pa.array([1, 2]), "int64"),
        (pa.array([["a"], ["b"]]), "List"),
        (pa.array([b"a", b"b"], pa.binary()), "binary"),
        (pa.array([True, None]), "bool"),
        (pa.array([1.5, None]), "float64"),
    ],
)
def test_a_column_without_strings_is_refused_with_one_of_strings(tmp_path, values, held):
    dataset = folder_of(tmp_path / "set", text=values, title=["x", "y"], count=[1, 2])
    with pytest.raises(ConfigError, match=rf"this column holds {held}.*\. Fix: dataset\.text_column=title$"):
        list(read_documents(dataset))
    with pytest.raises(ConfigError, match="must be a string"):
        check_local_hub_name(dataset)


def test_a_column_of_nulls_holds_no_document(tmp_path):
    with pytest.raises(ConfigError, match="holds no document with text"):
        list(read_documents(folder_of(tmp_path / "set", text=pa.array([None, None], pa.string()))))


def test_documents_know_their_rows(tmp_path):
    dataset = folder_of(tmp_path / "set", text=["zero", None, "two", "three"])
    documents = list(locate_documents(dataset))
    assert [document.place.row for document in documents] == [0, 2, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subset": "other"}, r"dataset\.subset=other: .* it has default\. Fix: dataset\.subset=default"),
        ({"split": "test"}, r"dataset\.split=test: .* it has train\. Fix: dataset\.split=train"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_names_that_the_data_set_does_not_have_are_listed(tmp_path, settings, message, streaming):
    folder = tmp_path / "set"
    folder_of(folder, text=["a"])
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: train.parquet\n---\n")
    dataset = DatasetConfig(format="hub", name=str(folder), streaming=streaming, **settings)
    with pytest.raises(ConfigError, match=message):
        list(read_documents(dataset))


def test_a_folder_without_data_hides_the_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openwebtext").mkdir()
    with pytest.raises(ConfigError, match=r"openwebtext: is a folder here.*rename this folder"):
        check_local_hub_name(DatasetConfig(format="hub", name="openwebtext"))
    (tmp_path / "a.jsonl").write_text('{"text": "x"}')
    with pytest.raises(ConfigError, match=r"is a file.*dataset\.files=a\.jsonl"):
        check_local_hub_name(DatasetConfig(format="hub", name="a.jsonl"))
    with pytest.raises(ConfigError, match="there is no such folder"):
        check_local_hub_name(DatasetConfig(format="hub", name="./nowhere"))


def raised_from(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("To support decoding audio data, please install 'torchcodec'."), "Fix: pip install torchcodec$"),
        (ModuleNotFoundError("No module named 'zstandard'", name="zstandard"), "Fix: pip install zstandard$"),
        (raised_from(RuntimeError("x"), ImportError("install h5py to read it")), "Fix: pip install h5py$"),
        (PermissionError(13, "Permission denied", "/cache"), "/cache.*HF_HOME"),
        (
            ValueError("Config name is missing.\nPlease pick one among the available configs: ['en', 'de']\nExample"),
            r"dataset\.subset=None: the data set needs a configuration; it has en, de\. Fix: dataset\.subset=en$",
        ),
        (
            ValueError("BuilderConfig 'x' not found. Available: ['en', 'de']"),
            r"it has en, de\. Fix: dataset\.subset=en",
        ),
        (ValueError("Unknown split \"x\". Should be one of ['train', 'test']."), r"it has train, test\. Fix: "),
        (RuntimeError("Dataset scripts are no longer supported, but found a.py"), "program"),
        (ConnectionError("no route\nto host"), r"cannot be loaded \(no route\)"),
        (KeyError("anything"), "cannot be loaded"),
    ],
)
def test_a_failure_of_the_library_is_one_line_with_a_fix(error, message):
    dataset = DatasetConfig(format="hub", name="some/set")
    explained = str(explain_failure(dataset, error))
    assert "\n" not in explained
    with pytest.raises(ConfigError, match=message):
        raise explain_failure(dataset, error)


@pytest.mark.parametrize("value", [1, ["a"], b"a", True, float("nan"), {"a": 1}])
def test_rows_of_an_unknown_schema_are_checked_one_by_one(monkeypatch, value):
    class Rows(list):
        features = None

    rows = Rows([{"text": "fine", "other": "x"}, {"other": "x"}, {"text": value, "other": "x"}])
    monkeypatch.setattr(hub_rows, "_load", lambda dataset: rows)
    with pytest.raises(ConfigError, match=r"some/set, row 2 holds .* dataset\.text_column=other"):
        list(read_documents(DatasetConfig(format="hub", name="some/set")))
