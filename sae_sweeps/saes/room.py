"""Room: how much memory a training step may take for its entries, where sizes are fixed before the step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Room:
    """Places for the entries of a batch and for their candidates, and whether they were too few.

    A step with a room never waits for the GPU: whether everything fitted is read afterwards, from `overflow`, int32
    (1,), which is 0 if it did.
    """

    entries: int
    candidates: int
    overflow: Tensor

    def require(self, fits: Tensor) -> None:
        """Note an overflow unless `fits`, bool () or (1,), is true."""
        self.overflow.add_(~fits.view(1))
