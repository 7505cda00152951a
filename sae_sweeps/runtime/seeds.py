"""Seeds of random controls, samples and shuffles."""

import hashlib


def mix_seed(seed: int, purpose: str) -> int:
    """Return a seed that depends on `seed` and on what it is for, for torch and NumPy alike.

    Two draws with one seed give the same numbers, whatever they are for. A control that shuffles with the bare seed can
    so put into order what was drawn with it, and is no control then. Training keeps its own seeds.

    purpose: a phrase, another one for each use
    """
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # below 2**63
