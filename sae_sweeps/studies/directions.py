"""Decoder directions of two SAEs compared by cosine similarity: best matches, and families of similar directions."""

# N directions on the left, M on the right, D model width, T directions in a tile, E pairs of directions

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from sae_sweeps.runtime.progress import OnProgress

TILE, TILE_CUDA = 1024, 8192  # directions of each side in one tile of cosines; the second on a GPU
EDGES = 2**21  # number of similar pairs collected before they are joined into families

Labels = npt.NDArray[np.int32]


@dataclass
class Matches:
    """The best match for each of N directions: the most similar direction of the other SAE.

    cosine (N,): the largest cosine, -inf before any comparison
    index (N,): row number of the direction with this cosine, -1 before any comparison
    """

    cosine: Tensor
    index: Tensor

    @classmethod
    def empty(cls, count: int, like: Tensor) -> "Matches":
        """Return the matches of `count` directions before any comparison, with the dtype and device of `like`."""
        return cls(like.new_full((count,), -torch.inf), torch.full((count,), -1, device=like.device))

    def improve(self, rows: slice, cosine_T: Tensor, index_T: Tensor) -> None:
        """Replace the matches of `rows` (T,) where a new cosine is larger. Of equal cosines the first is kept."""
        better_T = cosine_T > self.cosine[rows]
        self.cosine[rows] = torch.where(better_T, cosine_T, self.cosine[rows])
        self.index[rows] = torch.where(better_T, index_T, self.index[rows])


@dataclass
class Families:
    """Families of similar directions: connected components of the graph that links left and right directions.

    Two directions are linked if their cosine is at least a threshold. A direction without links is its own family.
    left (N,), right (M,): family number of each direction; a family has the same number on both sides
    """

    left: Labels
    right: Labels


@dataclass
class Comparison:
    """Result of `compare`: the best match of each direction of both sides, and the families by cosine threshold."""

    left: Matches
    right: Matches
    families: dict[float, Families]


class _FamilyBuilder:
    """Builds the families of one cosine threshold from pairs of directions that arrive tile by tile.

    Memory: one label per direction, EDGES pairs, and the pairs of one tile.
    """

    def __init__(self, threshold: float, left: int, right: int) -> None:
        self.threshold, self._left = threshold, left
        self._labels = np.arange(left + right, dtype=np.int32)
        self._edges: list[Labels] = []
        self._edge_count = 0

    def add(self, cosine_E: Tensor, left_E: Tensor, right_E: Tensor) -> None:
        """Add those of E pairs that reach the threshold; the others are ignored.

        left_E, right_E: row numbers of each pair's left and right direction
        """
        similar_E = cosine_E >= self.threshold
        if not similar_E.any():
            return
        pairs = torch.stack([left_E[similar_E], right_E[similar_E] + self._left]).to(torch.int32).cpu().numpy()
        self._edges.append(pairs)
        self._edge_count += pairs.shape[1]
        if self._edge_count >= EDGES:
            self._join()

    def _join(self) -> None:
        if not self._edges:
            return
        first, second = self._labels[np.concatenate(self._edges, axis=1)]
        self._edges, self._edge_count = [], 0
        size = len(self._labels)
        graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(size, size))
        _, joined = connected_components(graph, directed=False)
        self._labels = joined[self._labels]

    def build(self) -> Families:
        """Return the families that all pairs added so far form."""
        self._join()
        return Families(self._labels[: self._left], self._labels[self._left :])


def _split_tiles(rows_ND: Tensor, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield parts of `size` rows: the slice of row numbers, and the rows scaled to unit norm (T, D)."""
    for first in range(0, len(rows_ND), size):
        rows_TD = rows_ND[first : first + size]
        yield slice(first, first + len(rows_TD)), torch.nn.functional.normalize(rows_TD, dim=1)


@torch.no_grad()
def compare(
    left_ND: Tensor,
    right_MD: Tensor,
    thresholds: Sequence[float] = (),
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Compare all left with all right directions by cosine, and return best matches and families of similar directions.

    thresholds: cosines from which directions are similar; families are built for each
    on_progress: called with (done, total) left directions compared, after each row of tiles

    The N x M cosines are computed tile by tile and never stored as a whole. Memory besides the directions: a few
    numbers per direction and some tens of MB, regardless of the number of similar pairs.
    Raises: ValueError if left and right directions differ in width.
    """
    if left_ND.shape[1] != right_MD.shape[1]:
        widths = f"the left ones have width {left_ND.shape[1]} and the right ones {right_MD.shape[1]}"
        raise ValueError(f"all directions must have the same width, but {widths}")
    size = TILE_CUDA if left_ND.is_cuda else TILE
    left, right = Matches.empty(len(left_ND), left_ND), Matches.empty(len(right_MD), left_ND)
    builders = [_FamilyBuilder(threshold, len(left_ND), len(right_MD)) for threshold in thresholds]
    for rows, left_TD in _split_tiles(left_ND, size):
        for columns, right_TD in _split_tiles(right_MD, size):
            cosine_TT = left_TD @ right_TD.T
            for side, own, other, dim in ((left, rows, columns, 1), (right, columns, rows, 0)):
                best = cosine_TT.max(dim)
                side.improve(own, best.values, best.indices + other.start)
            if builders:
                row_E, column_E = (cosine_TT >= min(thresholds)).nonzero(as_tuple=True)
                cosine_E = cosine_TT[row_E, column_E]
                for builder in builders:
                    builder.add(cosine_E, row_E + rows.start, column_E + columns.start)
        if on_progress is not None:
            on_progress(rows.stop, len(left_ND))
    return Comparison(left, right, {builder.threshold: builder.build() for builder in builders})
