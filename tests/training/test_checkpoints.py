import logging

import pytest
import torch
from torch.testing import assert_close

from sae_sweeps.training import checkpoints


def state(value: float) -> dict[str, torch.Tensor]:
    return {"weights": torch.full((3, 4), value), "steps": torch.tensor(int(value))}


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 30, 4000):
        checkpoints.save(tmp_path, step, state(step))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step-00000030", "step-00004000"]
    assert_close(checkpoints.load_newest(tmp_path), state(4000))


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert checkpoints.load_newest(tmp_path / "nowhere") is None
    assert checkpoints.load_newest(tmp_path) is None


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def empty(file):
    file.write_bytes(b"")


def flip(file):
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def flip_header(file):
    data = bytearray(file.read_bytes())
    data[9] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, empty, flip, flip_header, lambda file: file.unlink()])
@pytest.mark.parametrize("part", [checkpoints.STATE, checkpoints.CHECKSUM])
def test_a_damaged_checkpoint_is_replaced_by_the_older_one_with_a_warning(tmp_path, caplog, damage, part):
    checkpoints.save(tmp_path, 1, state(1))
    checkpoints.save(tmp_path, 2, state(2))
    damage(tmp_path / "step-00000002" / part)
    with caplog.at_level(logging.WARNING):
        loaded = checkpoints.load_newest(tmp_path)
    assert_close(loaded, state(1))
    assert "step-00000002" in caplog.text
    assert "damaged" in caplog.text


def test_the_checksum_is_one_that_sha256sum_reads(tmp_path):
    import subprocess

    checkpoints.save(tmp_path, 1, state(1))
    subprocess.run(["sha256sum", "-c", checkpoints.CHECKSUM], cwd=tmp_path / "step-00000001", check=True)
