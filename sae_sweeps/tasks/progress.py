"""Between what takes its time and what shows how far it is."""

from collections.abc import Callable

from sae_sweeps import stopping
from sae_sweeps.display import PointDisplay


def telling(shown: PointDisplay, of: str = "sequences of the next chunk") -> Callable[[int, int], None]:
    """Have the display hear how many are done of how many; a plea to stop is heard there too."""

    def told(done: int, total: int) -> None:
        shown.waiting(done, total, of)
        stopping.check()

    return told
