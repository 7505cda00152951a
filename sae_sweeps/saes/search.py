"""Search primitives: places of large values, and the k-th largest value.

On a CPU numpy does this, whose comparisons and partitions take a fifth to a twentieth of the time of torch's. numpy has
no bfloat16, but the bits of bfloat16 numbers that are not negative, read as integers, have the order of the numbers.
"""

# R rows, W columns, S a shape with which the values broadcast, N places

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GROUP = 64  # latents at most whose largest bound stands for all of them in the search for a row's floor
FEWEST_GROUPS = 4  # least number of groups in a row, in multiples of k; with fewer the floor would be low
SIGN = np.int16(0x7FFF)  # all bits of a bfloat16 but the sign


def choose_group(width: int, k: int) -> int:
    """Return how many of `width` latents form a group whose largest bound stands for all of them."""
    group = GROUP
    while group > 1 and width // group < FEWEST_GROUPS * k:
        group //= 2
    return group


def find_true(mask: Tensor) -> Tensor:
    """Return the places of true values in the flattened mask, ascending, int64 (N,)."""
    if mask.device.type != "cpu":
        return mask.flatten().nonzero().squeeze(1)
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def find_at_least(values_RW: Tensor, least_S: Tensor) -> Tensor:
    """Return the places in the flattened matrix of values of at least `least_S`, ascending, int64 (N,)."""
    if values_RW.device.type != "cpu":
        return find_true(values_RW >= least_S)
    if values_RW.dtype != torch.bfloat16:
        return torch.from_numpy(np.flatnonzero(values_RW.numpy() >= least_S.detach().numpy()))
    values, least = _bits(values_RW), _bits(least_S)
    if least.min(initial=0) < 0:
        values, least = _in_order(values), _in_order(least)
    return torch.from_numpy(np.flatnonzero(values >= least))


def find_kth_largest(values_RW: Tensor, k: int) -> Tensor:
    """Return the k-th largest value of each row, (R,)."""
    if values_RW.device.type != "cpu":
        return values_RW.topk(k, dim=-1, sorted=False).values.amin(-1)
    place = values_RW.shape[-1] - k
    if values_RW.dtype != torch.bfloat16:
        return torch.from_numpy(np.partition(values_RW.numpy(), place, axis=-1)[..., place])
    kth = np.partition(_in_order(_bits(values_RW)), place, axis=-1)[..., place]
    return torch.from_numpy(_in_order(kth)).view(torch.bfloat16)


def pick_large(values_WR: Tensor, groups: int) -> Tensor:
    """Return a value of each of `groups` groups of rows, (groups, R): the group's largest if that is positive.

    `groups` divides W.
    """
    grouped = values_WR.unflatten(0, (groups, -1))
    if values_WR.dtype == torch.bfloat16 and values_WR.device.type == "cpu":
        return grouped.view(torch.int16).amax(1).view(torch.bfloat16)
    return grouped.amax(1)


def _bits(values: Tensor) -> npt.NDArray[np.int16]:
    bits: npt.NDArray[np.int16] = values.detach().view(torch.int16).numpy()
    return bits


def _in_order(bits: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Map bits of bfloat16 numbers to integers of the same order; the map is its own inverse."""
    return bits ^ ((bits >> 15) & SIGN)
