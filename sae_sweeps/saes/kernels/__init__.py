"""Triton kernels of a training step on a GPU; each sum has a fixed order, so that every run gives the same bytes.

Nothing here is needed: without Triton or a GPU the same operations are torch's, and the tests compare the two.
"""

import functools
import importlib.util
import os

from torch import Tensor

from sae_sweeps.runtime.devices import wants_kernels

WIDEST = 4096  # largest width of activations; wider rows do not fit into the registers of the update


@functools.cache
def _is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def can_run(tensor: Tensor) -> bool:
    """Return whether kernels run on this tensor.

    That is on a GPU with SAE_SWEEPS_KERNELS=1, or on a CPU where Triton interprets them (TRITON_INTERPRET=1).
    """
    wanted = wants_kernels() if tensor.is_cuda else os.environ.get("TRITON_INTERPRET") == "1"
    return wanted and _is_installed()
