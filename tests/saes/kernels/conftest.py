"""Runs the kernels: on a GPU where there is one, otherwise interpreted by Triton on CPU tensors."""

import os

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SWITCH = {"cuda": "SAE_SWEEPS_KERNELS", "cpu": "TRITON_INTERPRET"}[DEVICE]

# whether a kernel is compiled or interpreted is decided when Triton and the kernel's module are first imported
before = os.environ.get(SWITCH)
os.environ[SWITCH] = "1"
try:
    pytest.importorskip("triton", reason="Triton is not installed: make kernels")
    from sae_sweeps.saes.kernels import entries, rounding, scan, update  # noqa: F401
finally:
    if before is None:
        del os.environ[SWITCH]


@pytest.fixture(autouse=True)
def with_kernels(monkeypatch):
    """Use the kernels, and make new tensors where they run."""
    monkeypatch.setenv(SWITCH, "1")
    with torch.device(DEVICE):
        yield
