"""Decoder directions of two SAEs held against each other: best matches, and families of directions that are alike."""

# N directions on the left, M on the right, D model width, T rows of a tile

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

TILE, TILE_CUDA = 1024, 8192  # rows of both sides whose cosines are held at a time
EDGES = 2**21  # pairs that are gathered before families are joined

Labels = npt.NDArray[np.int32]


@dataclass
class Matches:
    """For each direction of one side the largest cosine with one of the other side (N,), and with which (N,)."""

    cosine: Tensor
    index: Tensor

    @classmethod
    def empty(cls, count: int, like: Tensor) -> "Matches":
        return cls(like.new_full((count,), -torch.inf), torch.full((count,), -1, device=like.device))

    def improve(self, at: slice, cosine_T: Tensor, index_T: Tensor) -> None:
        better_T = cosine_T > self.cosine[at]
        self.cosine[at] = torch.where(better_T, cosine_T, self.cosine[at])
        self.index[at] = torch.where(better_T, index_T, self.index[at])


@dataclass
class Families:
    """Connected components of the bipartite graph of pairs whose cosine is at least a threshold.

    left (N,) and right (M,) number the family of each direction; one that is like none is a family of its own.
    """

    left: Labels
    right: Labels


@dataclass
class Comparison:
    left: Matches
    right: Matches
    families: dict[float, Families]


class _FamilyBuilder:
    """Families at one threshold, while pairs keep coming. Memory: the labels, and at most a tile's pairs more than
    EDGES."""

    def __init__(self, threshold: float, left: int, right: int) -> None:
        self.threshold, self._left = threshold, left
        self._labels = np.arange(left + right, dtype=np.int32)
        self._edges: list[Labels] = []
        self._waiting = 0

    def add(self, cosine_E: Tensor, left_E: Tensor, right_E: Tensor) -> None:
        alike_E = cosine_E >= self.threshold
        if not alike_E.any():
            return
        pairs = torch.stack([left_E[alike_E], right_E[alike_E] + self._left]).to(torch.int32).cpu().numpy()
        self._edges.append(pairs)
        self._waiting += pairs.shape[1]
        if self._waiting >= EDGES:
            self._join()

    def _join(self) -> None:
        if not self._edges:
            return
        first, second = self._labels[np.concatenate(self._edges, axis=1)]
        self._edges, self._waiting = [], 0
        size = len(self._labels)
        graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(size, size))
        _, joined = connected_components(graph, directed=False)
        self._labels = joined[self._labels]

    def families(self) -> Families:
        self._join()
        return Families(self._labels[: self._left], self._labels[self._left :])


def _tiles(rows_ND: Tensor, size: int) -> Iterator[tuple[slice, Tensor]]:
    for first in range(0, len(rows_ND), size):
        rows_TD = rows_ND[first : first + size]
        yield slice(first, first + len(rows_TD)), torch.nn.functional.normalize(rows_TD, dim=1)


@torch.no_grad()
def compare(
    left_ND: Tensor,
    right_MD: Tensor,
    thresholds: Sequence[float] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare all directions of one side with all of the other, and find the families at each threshold.

    The N x M cosines are made a tile at a time and never held as a whole: beside the directions themselves, this takes
    a few numbers per direction and some tens of MB, however many are alike. `told` hears how many rows of how many on
    the left are done. Raises: ValueError if the directions are not of one width.
    """
    if left_ND.shape[1] != right_MD.shape[1]:
        raise ValueError(f"directions of width {left_ND.shape[1]} and {right_MD.shape[1]} cannot be compared")
    size = TILE_CUDA if left_ND.is_cuda else TILE
    left, right = Matches.empty(len(left_ND), left_ND), Matches.empty(len(right_MD), left_ND)
    joinings = [_FamilyBuilder(threshold, len(left_ND), len(right_MD)) for threshold in thresholds]
    for rows, left_TD in _tiles(left_ND, size):
        for columns, right_TD in _tiles(right_MD, size):
            cosine_TT = left_TD @ right_TD.T
            for side, at, other, dim in ((left, rows, columns, 1), (right, columns, rows, 0)):
                best = cosine_TT.max(dim)
                side.improve(at, best.values, best.indices + other.start)
            if joinings:
                row_E, column_E = (cosine_TT >= min(thresholds)).nonzero(as_tuple=True)
                alike_E = cosine_TT[row_E, column_E]
                for joining in joinings:
                    joining.add(alike_E, row_E + rows.start, column_E + columns.start)
        if on_progress is not None:
            on_progress(rows.stop, len(left_ND))
    return Comparison(left, right, {joining.threshold: joining.families() for joining in joinings})
