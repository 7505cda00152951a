import logging
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from sae_sweeps.runtime.files import sha256
from sae_sweeps.training import checkpoints


def state(value: float) -> dict[str, torch.Tensor]:
    return {"weights": torch.full((3, 4), value), "steps": torch.tensor(int(value))}


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 30, 4000):
        checkpoints.save(tmp_path, step, state(step), "one")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step-00000030", "step-00004000"]
    assert_close(checkpoints.load_newest(tmp_path, "one"), state(4000))


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert checkpoints.load_newest(tmp_path / "nowhere", "one") is None
    assert checkpoints.load_newest(tmp_path, "one") is None


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
    checkpoints.save(tmp_path, 1, state(1), "one")
    checkpoints.save(tmp_path, 2, state(2), "one")
    damage(tmp_path / "step-00000002" / part)
    with caplog.at_level(logging.WARNING):
        loaded = checkpoints.load_newest(tmp_path, "one")
    assert_close(loaded, state(1))
    assert "step-00000002" in caplog.text
    assert "damaged" in caplog.text


def test_the_checksum_is_one_that_sha256sum_reads(tmp_path):
    import subprocess

    checkpoints.save(tmp_path, 1, state(1), "one")
    subprocess.run(["sha256sum", "-c", checkpoints.CHECKSUM], cwd=tmp_path / "step-00000001", check=True)


def test_the_checkpoint_of_another_point_or_step_is_never_loaded(tmp_path, caplog):
    checkpoints.save(tmp_path, 1, state(1), "one")
    checkpoints.save(tmp_path / "other", 5, state(5), "two")
    shutil.copytree(tmp_path / "other" / "step-00000005", tmp_path / "step-00000005")
    assert_close(checkpoints.load_newest(tmp_path, "one"), state(1))
    assert "it belongs to two, not to one" in caplog.text
    checkpoints.save(tmp_path, 2, {"steps_done": torch.tensor(2)}, "one")
    (tmp_path / "step-00000002").rename(tmp_path / "step-00000007")
    assert_close(checkpoints.load_newest(tmp_path, "one"), state(1))
    assert "it is of step 2" in caplog.text


def test_a_checkpoint_of_an_earlier_version_is_accepted(tmp_path):
    checkpoints.save(tmp_path, 1, state(1), "one")
    folder = tmp_path / "step-00000001"
    save_file(state(1), folder / checkpoints.STATE)
    (folder / checkpoints.CHECKSUM).write_text(f"{sha256(folder / checkpoints.STATE)}  {checkpoints.STATE}\n")
    assert_close(checkpoints.load_newest(tmp_path, "two"), state(1))


def test_a_checkpoint_that_the_check_refuses_is_passed_over(tmp_path, caplog):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, state(step), "one")

    def check(found):
        if found["weights"][0, 0] == 2:
            raise ValueError("weights is of another shape")

    assert_close(checkpoints.load_newest(tmp_path, "one", check), state(1))
    assert "step-00000002 is damaged (weights is of another shape)" in caplog.text


def test_a_file_in_the_place_of_a_checkpoint_is_removed(tmp_path):
    checkpoints.save(tmp_path, 1, state(1), "one")
    (tmp_path / "step-00000002").write_bytes(b"")
    assert_close(checkpoints.load_newest(tmp_path, "one"), state(1))
    (tmp_path / "step-00000003").write_bytes(b"")
    checkpoints.save(tmp_path, 3, state(3), "one")
    assert_close(checkpoints.load_newest(tmp_path, "one"), state(3))
