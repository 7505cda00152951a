"""The cache of activations: entries are found again, bounded in size, and never wrong."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError

from sae_sweeps.activations.cache import ActivationCache
from sae_sweeps.runtime.places import PROJECT

TOKENS_NS = torch.arange(12).view(3, 4)


def cache(folder, max_bytes=2**20, **origin):
    return ActivationCache(folder, max_bytes, {"weights": "abc", **origin})


def activations(tokens_NS):
    return tokens_NS[:, :, None].float() * torch.tensor([1.0, -0.5, 1 / 3])


def must_not_compute():
    raise AssertionError("the activations should be in the cache")


def test_an_entry_is_found_by_another_process(tmp_path):
    first = cache(tmp_path)
    kept = first.get(TOKENS_NS, lambda: activations(TOKENS_NS))
    again = cache(tmp_path)
    assert torch.equal(again.get(TOKENS_NS, must_not_compute), kept)
    assert (first.hits, first.misses, again.hits, again.misses) == (0, 1, 1, 0)
    assert not list(tmp_path.glob("*/.*"))


@pytest.mark.parametrize("origin", [{"weights": "abd"}, {"torch": "3"}])
def test_another_origin_is_another_entry(tmp_path, origin):
    cache(tmp_path).get(TOKENS_NS, lambda: activations(TOKENS_NS))
    other = cache(tmp_path, **origin)
    assert torch.equal(other.get(TOKENS_NS, lambda: activations(TOKENS_NS) + 1), activations(TOKENS_NS) + 1)
    assert other.misses == 1


def test_another_hook_is_another_entry(tmp_path):
    here = cache(tmp_path)
    for number, hook in enumerate(("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre")):
        here.get(TOKENS_NS, lambda number=number: activations(TOKENS_NS) + number, hook)
    assert torch.equal(here.get(TOKENS_NS, must_not_compute, "blocks.1.hook_resid_pre"), activations(TOKENS_NS))


def test_other_tokens_or_another_shape_are_other_entries(tmp_path):
    here = cache(tmp_path)
    for tokens_NS in (TOKENS_NS, TOKENS_NS + 1, TOKENS_NS.view(4, 3), TOKENS_NS[:2]):
        here.get(tokens_NS, lambda tokens_NS=tokens_NS: activations(tokens_NS))
    assert (here.hits, here.misses) == (0, 4)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_entry_is_computed_again_and_replaced(tmp_path, harm, caplog):
    cache(tmp_path).get(TOKENS_NS, lambda: activations(TOKENS_NS))
    (file,) = tmp_path.glob("*/*.safetensors")
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes({"flip": data, "cut": data[:-9], "empty": b""}[harm])
    here = cache(tmp_path)
    assert torch.equal(here.get(TOKENS_NS, lambda: activations(TOKENS_NS)), activations(TOKENS_NS))
    assert "damaged" in caplog.text
    assert torch.equal(cache(tmp_path).get(TOKENS_NS, must_not_compute), activations(TOKENS_NS))


def test_a_full_cache_evicts_the_least_recently_used_entries(tmp_path):
    sets = [TOKENS_NS + 100 * number for number in range(4)]
    cache(tmp_path).get(sets[0], lambda: activations(sets[0]))
    size = next(tmp_path.glob("*/*.safetensors")).stat().st_size
    here = cache(tmp_path, max_bytes=2.9 * size)
    for age, number in ((300, 0), (200, 1)):
        here.get(sets[number], lambda number=number: activations(sets[number]))
        newest = max(tmp_path.glob("*/*.safetensors"), key=lambda file: file.stat().st_mtime)
        then = newest.stat().st_mtime - age
        os.utime(newest, (then, then))
    cache(tmp_path).get(sets[0], must_not_compute)  # just used, so entry 1 is the least recently used
    here = cache(tmp_path, max_bytes=2.9 * size)
    here.get(sets[2], lambda: activations(sets[2]))
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 2
    here.get(sets[0], must_not_compute)
    here.get(sets[2], must_not_compute)


def test_part_of_a_text_larger_than_the_cache_stays_in_it(tmp_path):
    sets = [TOKENS_NS + 100 * number for number in range(6)]
    cache(tmp_path).get(sets[5], lambda: activations(sets[5]))  # an entry of an earlier text
    size = next(tmp_path.glob("*/*.safetensors")).stat().st_size
    for hits in (0, 3):
        here = cache(tmp_path, max_bytes=3.5 * size)
        for tokens_NS in sets[:5]:
            here.get(tokens_NS, lambda tokens_NS=tokens_NS: activations(tokens_NS))
        assert here.hits == hits
        assert len(list(tmp_path.glob("*/*.safetensors"))) == 3


def test_an_entry_larger_than_the_cache_is_not_stored(tmp_path):
    cache(tmp_path).get(TOKENS_NS + 1, lambda: activations(TOKENS_NS))
    (kept,) = tmp_path.glob("*/*.safetensors")
    cache(tmp_path, max_bytes=10).get(TOKENS_NS, lambda: activations(TOKENS_NS))
    assert list(tmp_path.glob("*/*")) == [kept]


def test_a_full_disk_does_not_stop_the_run(tmp_path, caplog, monkeypatch):
    def no_space(*arguments, **options):
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("sae_sweeps.activations.cache.save_tensors", no_space)
    assert torch.equal(cache(tmp_path).get(TOKENS_NS, lambda: activations(TOKENS_NS)), activations(TOKENS_NS))
    assert "No space left" in caplog.text


def test_a_folder_that_cannot_be_written_does_not_stop_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    here = cache(tmp_path / "file")
    assert torch.equal(here.get(TOKENS_NS, lambda: activations(TOKENS_NS)), activations(TOKENS_NS))
    assert "cannot write" in caplog.text


def write_and_evict(folder):
    here = cache(folder, max_bytes=3000)
    for number in range(150):
        tokens_NS = TOKENS_NS + number % 11
        assert torch.equal(here.get(tokens_NS, lambda tokens=tokens_NS: activations(tokens)), activations(tokens_NS))


def test_processes_share_a_cache_while_all_write_and_evict(tmp_path):
    script = (
        "import multiprocessing, sys\n"
        "from tests.activations.test_cache import write_and_evict\n"
        "make = multiprocessing.get_context('fork').Process\n"  # they import torch once
        "processes = [make(target=write_and_evict, args=[sys.argv[1]]) for _ in range(3)]\n"
        "[process.start() for process in processes]\n"
        "[process.join() for process in processes]\n"
        "assert [process.exitcode for process in processes] == [0, 0, 0]\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stderr
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*.safetensors")) <= 3000


def test_exchanged_entries_are_computed_again(tmp_path, caplog):
    batches = [TOKENS_NS, TOKENS_NS + 1]
    for tokens_NS in batches:
        cache(tmp_path).get(tokens_NS, lambda tokens_NS=tokens_NS: activations(tokens_NS))
    first, second = tmp_path.glob("*/*.safetensors")
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    for tokens_NS in batches:
        found = cache(tmp_path).get(tokens_NS, lambda tokens_NS=tokens_NS: activations(tokens_NS))
        assert torch.equal(found, activations(tokens_NS))
        assert torch.equal(cache(tmp_path).get(tokens_NS, must_not_compute), found)  # written again
    assert caplog.text.count("does not name these tokens and this model") == 2
