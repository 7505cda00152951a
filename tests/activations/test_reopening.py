"""Texts that the network interrupts: which errors are waited for, and that the rows are those of one reading."""

import errno
import itertools
import json
import logging
import signal
import socket
import ssl
import urllib.error

import datasets
import fsspec.exceptions
import httpx
import pyarrow
import pyarrow.parquet
import pytest
import requests
import urllib3

from sae_sweeps.activations import reopening
from sae_sweeps.activations.documents import read_documents
from sae_sweeps.activations.reopening import ReopenedRows, take_row
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.errors import BrokenTextError, ConfigError
from sae_sweeps.runtime.network import is_network_error


def http_error(status: int) -> Exception:
    request = httpx.Request("GET", "https://host/part")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


def requests_error(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("no", response=response)


def make_library_error(module: str, base: str, **attributes: object) -> Exception:
    """Return an error of a library that need not be installed: of a subclass of its class `base`."""
    parent = type(base, (Exception,), {"__module__": module})
    return type("Another", (parent,), {"__module__": module, **attributes})("broken")


def caused_by(cause: Exception, error: Exception) -> Exception:
    """Return `error` as raised in the handler of `cause`, with the cause hidden."""
    try:
        try:
            raise cause
        except Exception:
            raise error from None
    except Exception as raised:
        return raised


PASSING = [
    ConnectionError("Server Disconnected"),
    TimeoutError(),
    OSError(errno.ETIMEDOUT, "Connection timed out"),
    OSError(errno.ENETUNREACH, "Network is unreachable"),
    OSError(errno.ESTALE, "Stale file handle"),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    ssl.SSLEOFError("EOF occurred in violation of protocol"),
    urllib.error.URLError("no route"),
    urllib3.exceptions.IncompleteRead(10, 20),
    requests.exceptions.ChunkedEncodingError("broken"),
    requests.exceptions.ReadTimeout("slow"),
    httpx.ReadTimeout("The read operation timed out"),
    httpx.RemoteProtocolError("peer closed connection"),
    make_library_error("aiohttp.client_exceptions", "ClientConnectionError"),
    make_library_error("aiohttp.client_exceptions", "ClientResponseError", status=502),
    make_library_error("botocore.exceptions", "HTTPClientError"),
    make_library_error("gcsfs.retry", "HttpError", code=503),
    fsspec.exceptions.FSTimeoutError(),
    FileNotFoundError("https://host/part-17.parquet"),
    http_error(429),
    http_error(503),
    requests_error(500),
    caused_by(httpx.ConnectError("refused"), datasets.exceptions.DatasetGenerationError("An error occurred")),
    caused_by(ConnectionResetError(), ConfigError("dataset.files", "a", "cannot be read", "wait")),
]
LASTING = [
    ValueError("a bad row"),
    KeyError("text"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    pyarrow.ArrowInvalid("Parquet magic bytes not found"),
    OSError(errno.EACCES, "Permission denied"),
    OSError(errno.ENOSPC, "No space left on device"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/part-17.jsonl"),
    ssl.SSLCertVerificationError("self-signed certificate"),
    httpx.UnsupportedProtocol("no scheme"),
    http_error(401),
    http_error(404),
    requests_error(403),
    make_library_error("aiohttp.client_exceptions", "ClientResponseError", status=416),
    make_library_error("mine", "ConnectionError"),
    MemoryError(),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_errors_of_the_network_pass(error):
    assert is_network_error(error)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_other_errors_do_not_pass(error):
    assert not is_network_error(error)


def test_a_hub_that_is_switched_off_does_not_pass():
    from huggingface_hub.errors import OfflineModeIsEnabled

    assert not is_network_error(caused_by(OfflineModeIsEnabled("offline"), ConnectionError("Couldn't reach it")))


@pytest.fixture
def waits(monkeypatch):
    """Waits take no time; the list has their seconds."""
    seconds = []
    monkeypatch.setattr(reopening, "pause", seconds.append)
    return seconds


class Source:
    """Rows 0 to 9. Each reading but the last fails, at the row and with the error that `failures` lists for it."""

    def __init__(self, *failures):
        self.failures, self.readings = list(failures), 0

    def load(self):
        self.readings += 1
        failure = self.failures.pop(0) if self.failures else (None, None)
        return self.rows(*failure)

    def rows(self, at, error):
        for row in range(10):
            if row == at:
                raise error
            yield f"row {row}"


def read(source, seconds=100.0):
    return ReopenedRows(source.load, take_row, "the/set", seconds)


ROWS = [f"row {row}" for row in range(10)]


def test_a_reading_continues_at_the_row_where_it_broke_off(waits, caplog):
    caplog.set_level(logging.INFO)
    source = Source(
        (0, ConnectionError("a")), (3, TimeoutError("b")), (2, TimeoutError("c")), (9, ConnectionError("d"))
    )
    assert list(read(source)) == ROWS
    assert source.readings == 5
    assert waits == [1, 1, 1, 1]
    warned = [record.getMessage() for record in caplog.records]
    assert warned[0].startswith("the text the/set cannot be opened (ConnectionError: a); trying again in 1 s; 0 of at ")
    assert warned[2].startswith("the text broke off at row 3 of the/set (TimeoutError: b)")
    assert warned[-1] == "the text continues at row 9 of the/set"


def test_waits_grow_and_end(waits):
    source = Source(*[(5, ConnectionError("gone"))] * 50)
    found = []
    with pytest.raises(
        BrokenTextError, match=r"broke off at row 5 of the/set: ConnectionError: gone\. .* 300 s.*rerun"
    ):
        found += read(source, 300.0)
    assert waits == [1, 1, 2, 4, 8, 16, 32, 60, 60, 60, 56]
    assert sum(waits) == 300


def test_a_row_that_cannot_be_read_is_named_at_once(waits):
    rows = iter(read(Source((7, ValueError("Invalid value")))))
    assert list(itertools.islice(rows, 7)) == ROWS[:7]
    with pytest.raises(BrokenTextError, match=r"broke off at row 7 of the/set: ValueError: Invalid value\. Fix: "):
        next(rows)
    assert waits == []


@pytest.mark.parametrize("error", [ValueError("bad"), ConfigError("dataset.files", "a.jsonl", "row 0 is bad", "mend")])
def test_an_error_at_the_first_row_is_raised_as_it_is(waits, error):
    with pytest.raises(type(error)) as raised:
        list(read(Source((0, error))))
    assert raised.value is error


def test_without_patience_an_error_of_the_network_is_raised_at_once(waits):
    with pytest.raises(ConnectionError):
        list(read(Source((0, ConnectionError("a"))), 0.0))
    with pytest.raises(BrokenTextError, match="row 1"):
        list(read(Source((1, ConnectionError("a"))), 0.0))
    assert waits == []


@pytest.mark.parametrize("change", [lambda rows: rows[1:], lambda rows: rows[:2], lambda rows: ["new", *rows]])
def test_a_data_set_that_has_changed_in_the_meantime_is_not_read_on(waits, change):
    source = Source((4, ConnectionError("a")))
    readings = iter([source.load(), iter(change(ROWS))])
    with pytest.raises(BrokenTextError, match=r"row 4 of the/set, and another reading gives other rows"):
        list(ReopenedRows(lambda: next(readings), take_row, "the/set", 10.0))


def test_a_signal_ends_the_wait():
    source = Source(*[(5, ConnectionError("gone"))] * 50)
    before = signal.getsignal(signal.SIGUSR1)
    signals.install_handlers(signal.SIGUSR1)
    try:
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(signals.Stopped):
            list(read(source, 1000.0))
        assert source.readings == 1
    finally:
        signals.reset()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("form", ["json", "parquet"])
@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("at", [1, 24, 25, 26, 74])
def test_a_data_set_of_several_files_is_read_on_exactly(tmp_path, monkeypatch, waits, form, streaming, at):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"text": f"row {number}", "other": number} for number in range(75)]
    for file in range(3):
        part = rows[25 * file : 25 * (file + 1)]
        if form == "json":
            (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        else:
            pyarrow.parquet.write_table(
                pyarrow.Table.from_pylist(part), tmp_path / f"{file}.parquet", row_group_size=10
            )
    load, read_before = datasets.load_dataset, []

    def load_dataset(name, subset, **options):
        """Load the files, as a data set whose first reading breaks off."""
        return Breaking(load(form, data_files=f"{tmp_path}/*.{form}*", **options), read_before, at)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    dataset = DatasetConfig(format="hub", name="the/set", streaming=streaming)
    assert list(read_documents(dataset)) == [row["text"] for row in rows]
    assert len(waits) == 1
    if streaming:
        assert len(read_before) <= at + 1 + 75 - at + 1  # the rows before are not read again


class Breaking:
    """A data set that breaks off at a row in its first reading. `readings` gets an item for each row that is read."""

    def __init__(self, rows, readings, at):
        self.rows, self.readings, self.at = rows, readings, at
        if hasattr(rows, "state_dict"):
            self.state_dict, self.load_state_dict = rows.state_dict, rows.load_state_dict

    def __iter__(self):
        is_first = not self.readings
        for index, row in enumerate(self.rows):
            if is_first and index == self.at:
                raise ConnectionError("Server Disconnected")
            self.readings.append(index)
            yield row
