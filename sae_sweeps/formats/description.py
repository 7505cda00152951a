"""What the files of an SAE say of it, read without its weights."""

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
    fed: str = "none"  # how activations are normalised before they come to it, if it has no way to do so itself
    of_directions: str | None = None  # of a meta-SAE: the SAE whose decoder directions it is of


FED = "normalize_activations"  # in the configurations of libraries that have no word for it
