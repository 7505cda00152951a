"""Native bfloat16: detected from the CPU's flags and the GPU driver, and part of a point's name."""

import pytest

from sae_sweeps.runtime import devices
from tests.config.test_config import compose_name
from tests.conftest import composed


@pytest.fixture
def this_machine(tmp_path, monkeypatch):
    """A function that pretends that this machine's CPU has these flags, and a GPU or not."""

    def pretend(flags: str, gpu: bool = False) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: a CPU\nflags\t\t: {flags}\nbugs\t\t:\n" * 2)
        monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(devices, "GPU_DRIVER", tmp_path / ("cpuinfo" if gpu else "none"))
        devices.native_dtype.cache_clear()

    yield pretend
    devices.native_dtype.cache_clear()


@pytest.mark.parametrize(
    ("flags", "gpu", "device", "dtype"),
    [
        ("fpu avx512f avx512_bf16 gfni", False, "auto", "bfloat16"),
        ("fpu amx_bf16", False, "cpu", "bfloat16"),
        ("fpu avx512f avx512_vnni", False, "auto", "float32"),
        ("fpu avx2", True, "auto", "bfloat16"),
        ("fpu avx2", True, "cpu", "float32"),
        ("fpu avx2", False, "cuda:1", "bfloat16"),
    ],
)
def test_bfloat16_is_native_on_devices_with_instructions_for_it(this_machine, flags, gpu, device, dtype):
    this_machine(flags, gpu)
    assert devices.native_dtype(device) == dtype
    assert composed("model.dtype=auto", f"device={device}").model.dtype == dtype


def test_a_machine_without_cpu_flags_computes_in_float32(this_machine, tmp_path, monkeypatch):
    this_machine("avx512_bf16")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "none")
    assert devices.native_dtype("auto") == "float32"


def test_a_point_is_named_by_the_dtype_that_auto_resolves_to(this_machine):
    named = []
    for flags, dtype in (("avx512_bf16", "bfloat16"), ("avx2", "float32")):
        this_machine(flags)
        named.append(compose_name("model.dtype=auto"))
        assert named[-1] == compose_name(f"model.dtype={dtype}")
    assert named[0] != named[1]
