"""What the files of an SAE declare, read without its weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """An SAE as its files declare it; None where they do not say."""

    architecture: str
    d_in: int | None
    dict_size: int | None
    k: int | None = None
    model: str | None = None
    hook: str | None = None
    trained_here: bool = False
    # how activations have to be normalised before they reach it, if the format cannot have it do so itself
    input_normalization: str = "none"
    directions_of: str | None = None  # for a meta-SAE: the SAE whose decoder directions it reconstructs


# where that is noted in the configurations of libraries that cannot normalise activations
NORMALIZATION_KEY = "normalize_activations"
