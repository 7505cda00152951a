"""What reads activations is named only where it changes a result, and points from before keep their names."""

import json
from dataclasses import asdict

import pytest

from sae_sweeps.config.conversion import from_json
from sae_sweeps.config.identity import select_stream_settings
from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime import devices
from sae_sweeps.runtime.devices import resolve_reader
from tests.config.test_config import compose_name
from tests.conftest import EARLIER_QUICK, composed


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_reads_with_transformers_and_a_cpu_with_transformer_lens(device):
    assert resolve_reader("auto", "cpu") == "transformer_lens"
    assert resolve_reader("auto", device) == "transformers"
    for reader in ("transformer_lens", "transformers"):
        assert resolve_reader(reader, "cpu") == resolve_reader(reader, device) == reader


def test_a_device_that_is_chosen_later_is_the_gpu_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "GPU_DRIVER", tmp_path / "version")
    assert resolve_reader("auto", "auto") == "transformer_lens"
    (tmp_path / "version").write_text("a driver")
    assert resolve_reader("auto", "auto") == "transformers"


def test_a_point_is_named_by_a_reader_that_changes_its_result():
    assert compose_name("model=gpt2-small", *EARLIER_QUICK).endswith("-05f4b415")
    names = {
        (device, reader): compose_name(f"device={device}", f"model.reader={reader}")
        for device in ("cpu", "cuda")
        for reader in ("auto", "transformer_lens", "transformers")
    }
    assert names["cpu", "auto"] == names["cpu", "transformer_lens"] == compose_name()
    assert names["cuda", "auto"] == names["cuda", "transformers"] == compose_name()
    assert names["cpu", "transformers"] != compose_name() != names["cuda", "transformer_lens"]


def test_streams_keep_their_names_and_settings_from_before_are_read():
    config = composed()
    assert "reader" not in select_stream_settings(config)["model"]
    assert select_stream_settings(composed("model.reader=transformers"))["model"]["reader"] == "transformers"
    before = asdict(config)
    del before["model"]["reader"]
    rebuilt = from_json(json.loads(json.dumps(before)))
    assert rebuilt.model.reader == "auto"
    assert select_stream_settings(rebuilt) == select_stream_settings(config)


def test_another_reader_is_refused():
    assert [problem.setting for problem in find_problems(composed("model.reader=vllm"))] == ["model.reader"]
