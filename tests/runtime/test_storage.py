"""One line for each reason for which a file cannot be written: the place, the cause, the fix."""

import errno
import os

import pytest
from safetensors import SafetensorError

from sae_sweeps.runtime import storage
from sae_sweeps.runtime.errors import describe_error
from sae_sweeps.runtime.files import naming_file, save_tensors
from sae_sweeps.runtime.storage import explain_storage, mount_point, nearest_folder


@pytest.mark.parametrize(
    ("number", "start", "fix"),
    [
        (errno.ENOSPC, "the disk is full: / has 0.5 MiB free, at /new/folder/file", "Free some space there"),
        (errno.EDQUOT, "your quota is used up: / has 0.5 MiB free, at /new/folder/file", "Free some space there"),
        (errno.EFBIG, "the file /new/folder/file is larger than", "Raise the limit"),
        (errno.EROFS, "the file system / is read-only, so /new/folder/file cannot be written", "output_root=FOLDER"),
        (errno.EACCES, "no permission to use /new/folder/file: the folder / belongs to ", "output_root=FOLDER"),
        (errno.EPERM, "no permission to use /new/folder/file: the folder / belongs to ", "output_root=FOLDER"),
    ],
)
def test_an_error_names_the_place_and_the_fix(monkeypatch, number, start, fix):
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 9, 200, 128, 9, 9, 9, 0, 255)))
    line = describe_error(OSError(number, os.strerror(number), "/new/folder/file"))
    assert line.startswith(start)
    assert fix in line
    assert "\n" not in line


def test_a_disk_without_inodes_differs_from_one_without_space(monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 9, 200, 128, 9, 0, 0, 0, 255)))
    line = describe_error(OSError(errno.ENOSPC, "No space left on device", "/new"))
    assert line.startswith("the disk is full: / can hold no more files (no free inodes), at /new. Remove some files")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_an_error_without_a_place_is_explained_too(number):
    assert (line := explain_storage(OSError(number, os.strerror(number)))) is not None
    assert "None" not in line


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError(errno.EIO, "x", "y"), OSError(errno.EACCES, "x"), OSError()]
)
def test_other_errors_are_not_explained(error):
    assert explain_storage(error) is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("write failed: Disk quota exceeded (os error 122)"),
        RuntimeError("PytorchStreamWriter: No space left on device"),
    ],
)
def test_an_error_of_writing_gets_the_name_of_the_file(tmp_path, error):
    with pytest.raises(OSError, match="file") as raised, naming_file(tmp_path / "file"):
        raise error
    assert raised.value.filename == str(tmp_path / "file")
    assert f"{mount_point(tmp_path)} has" in describe_error(raised.value)


def test_a_name_and_other_errors_stay(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, naming_file(tmp_path / "file"):
        (tmp_path / "other").read_bytes()
    assert raised.value.filename == str(tmp_path / "other")
    with pytest.raises(SafetensorError, match="invalid"), naming_file(tmp_path / "file"):
        raise SafetensorError("invalid")


def test_places_are_found_before_they_exist(tmp_path):
    assert nearest_folder(tmp_path / "new" / "file") == tmp_path
    assert mount_point(tmp_path / "new" / "file") == mount_point(tmp_path)
    assert os.path.ismount(mount_point(tmp_path))


def test_a_user_whom_the_system_does_not_know_is_a_number(monkeypatch):
    monkeypatch.setattr(storage.getpass, "getuser", lambda: {}["USER"])
    assert f"you are user {os.geteuid()}" in describe_error(PermissionError(errno.EACCES, "denied", "/new"))


def test_a_full_disk_of_tensors_names_their_file(tmp_path):
    torch = pytest.importorskip("torch")
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        save_tensors({"a": torch.ones(1)}, tmp_path / "file")
