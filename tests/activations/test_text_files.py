"""Paths and globs, compressed files, and files that are no text."""

import bz2
import gzip
import lzma
import os
import zipfile

import pyarrow as pa
import pytest

from sae_sweeps.activations.documents import read_documents
from sae_sweeps.activations.rows import check_file
from sae_sweeps.activations.text_files import find_files
from sae_sweeps.config import DatasetConfig
from sae_sweeps.runtime.errors import ConfigError

TEXT = b"the first line\nand the second, in UTF-8: caf\xc3\xa9\n" * 50
ROWS = b"".join(b'{"text": "row %d", "other": [%d]}\n' % (n, n) for n in range(300))


def zstd(data):
    with pa.BufferOutputStream() as sink:
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return sink.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def found(*files):
    return find_files(DatasetConfig(format="text", files=list(files)))


def read(file, format="text"):
    return list(read_documents(DatasetConfig(format=format, files=str(file))))


NAMES = ["a[1].txt", "a b.txt", "a::b.txt", "*.txt", "what?.txt", "{x}.txt", "a,b.txt", ".hidden.txt", "100%.txt"]


@pytest.mark.parametrize("name", [*NAMES, "[!a].txt", "a\\b.txt", "'q'.txt", "$HOME.txt", "~name.txt", "漢\udcff.txt"])
def test_a_path_that_exists_is_taken_as_it_is(tmp_path, name, monkeypatch):
    try:
        (tmp_path / name).write_text("this one")
    except (OSError, UnicodeEncodeError):
        pytest.skip("the file system has no such names")
    for other in ("a1.txt", "ax.txt", "b.txt"):
        (tmp_path / other).write_text("another")
    assert found(f"{tmp_path}/{name}") == [f"{tmp_path}/{name}"]
    assert read(tmp_path / name) == ["this one"]
    monkeypatch.chdir(tmp_path)
    assert found(name) == [name]


@pytest.mark.parametrize("folder", ["run [v2]", "a*b", "[ab]", "x?y/[z]"])
def test_folders_of_a_glob_that_exist_are_no_glob(tmp_path, folder):
    (tmp_path / folder / "deep").mkdir(parents=True)
    for name in ("1.txt", "2.txt", "deep/3.txt"):
        (tmp_path / folder / name).write_text(name)
    (tmp_path / "run v").mkdir()
    (tmp_path / "run v" / "1.txt").write_text("another")
    assert found(f"{tmp_path}/{folder}/*.txt") == [f"{tmp_path}/{folder}/{n}.txt" for n in (1, 2)]
    assert len(found(f"{tmp_path}/{folder}/**/*.txt")) == 3
    assert found(f"{tmp_path}/{folder}/[2-9].txt") == [f"{tmp_path}/{folder}/2.txt"]


def test_a_file_is_found_once_however_its_path_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    (tmp_path / "in" / "b.txt").write_text("b")
    (tmp_path / "link.txt").symlink_to("in/a.txt")
    (tmp_path / "also").symlink_to("in")
    spelled = [
        "in/a.txt",
        "in/../in/a.txt",
        "./in/a.txt",
        f"{tmp_path}/in/a.txt",
        "link.txt",
        "also/a.txt",
        "in//a.txt",
    ]
    for first in spelled:
        for second in spelled:
            assert len(found(first, second)) == 1
    assert len(found("**/*.txt", "in/*")) == 2
    assert found("in/b.txt", "in/a.txt", "in/*.txt") == ["in/a.txt", "in/b.txt"]


def test_paths_that_match_no_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for path in ("*.txt", "broken.txt", "pipe", "a\0b", "[", "**/*"):
        with pytest.raises(ConfigError, match="matches no file"):
            found(path)
    with pytest.raises(ConfigError, match=r"folder: is a folder\. Fix: .*folder/\*"):
        found("folder")


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("named", [True, False], ids=["with its ending", "under another name"])
def test_compressed_files_are_read(tmp_path, ending, named):
    for data, format, name in ((TEXT, "text", "a.txt"), (ROWS, "json", "a.jsonl")):
        file = tmp_path / (name + ending * named)
        file.write_bytes(COMPRESS[ending](data))
        expected = [data.decode()] if format == "text" else [f"row {n}" for n in range(300)]
        assert read(file, format) == expected
        file.write_bytes(COMPRESS[ending](data[:100]) + COMPRESS[ending](data[100:]))  # two parts, as pigz writes them
        assert read(file, format) == expected


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("format", ["text", "json"])
def test_a_compressed_file_that_is_cut_off_or_damaged_is_refused(tmp_path, ending, format):
    whole, file = COMPRESS[ending](TEXT if format == "text" else ROWS), tmp_path / f"a{ending}"
    for size in (12, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ConfigError, match=rf"a\{ending}: (is cut off or damaged|has the ending)"):
            read(file, format)
    if ending != ".zst":  # pyarrow writes no checksum
        file.write_bytes(whole[:20] + bytes(20) + whole[40:])
        with pytest.raises(ConfigError, match=rf"a\{ending}"):
            read(file, format)


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_file_with_a_wrong_ending_is_refused_before_it_is_read(tmp_path, ending):
    file = tmp_path / f"a.txt{ending}"
    file.write_bytes(TEXT)
    dataset = DatasetConfig(format="text", files=str(file))
    with pytest.raises(ConfigError, match=rf"has the ending \{ending}, but is not compressed like that"):
        check_file(dataset, str(file))


def test_a_zip_archive_of_one_file_is_read(tmp_path):
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", ROWS)
    assert read(file, "json") == [f"row {n}" for n in range(300)]
    whole = file.read_bytes()
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("b.jsonl", ROWS)
    with pytest.raises(ConfigError, match="a zip archive of 2 files"):
        read(file, "json")
    file.write_bytes(whole[:-30])
    with pytest.raises(ConfigError, match="is cut off or damaged"):
        read(file, "json")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 14028008\n"


@pytest.mark.parametrize("format", ["text", "json", "parquet"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a Git LFS pointer.*Fix: git lfs pull"),
        (b"7z\xbc\xaf\x27\x1c more", "is a 7z archive"),
        (b"\x04\x22\x4d\x18 more", "is compressed with lz4"),
        (b"%PDF-1.7\n", "is a PDF file"),
        ("text".encode("utf-16"), "is UTF-16"),
        (b"a.txt" + bytes(252) + b"ustar\x0000" + bytes(600), "is a tar archive"),
    ],
)
def test_files_that_are_no_text_are_named_for_what_they_are(tmp_path, format, content, message):
    file = tmp_path / "a"
    dataset = DatasetConfig(format=format, files=str(file))
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        check_file(dataset, str(file))
    if format != "parquet":
        file.write_bytes(gzip.compress(content))
        with pytest.raises(ConfigError, match=f"holds what {message}"):
            check_file(dataset, str(file))


def test_a_long_text_about_pointers_is_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(POINTER * 9)
    assert read(tmp_path / "a.txt") == [(POINTER * 9).decode()]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_one_error(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "a.txt").chmod(0)
    for format in ("text", "json", "parquet"):
        with pytest.raises(ConfigError, match=r"a\.txt: cannot be read \(Permission denied\)"):
            read(tmp_path / "a.txt", format)
