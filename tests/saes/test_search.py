"""The search primitives against torch's own."""

import pytest
import torch

from sae_sweeps.saes.search import find_at_least, find_true


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1024, 1024), (1023, 1025), (3, 5), (0, 8), (1, 2**21)])
def test_true_values_are_found_in_order(shape, share):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < share
    assert torch.equal(find_true(mask), mask.flatten().nonzero().squeeze(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("least", [-0.5, 0.0, 1.5])
def test_values_of_at_least_a_bound_are_found_in_a_slice_too(dtype, least):
    values = torch.randn(64, 48, generator=torch.Generator().manual_seed(1)).to(dtype)
    least_1 = torch.tensor(least, dtype=dtype)
    for part in (values, values[3:], values[:, 5:]):
        assert torch.equal(find_at_least(part, least_1), (part >= least_1).flatten().nonzero().squeeze(1))
