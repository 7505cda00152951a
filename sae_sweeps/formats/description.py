"""What the files of an SAE declare, read without loading the weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """The properties that the files of an SAE declare; None for a property that the files do not name."""

    architecture: str
    d_in: int | None
    dict_size: int | None
    k: int | None = None  # active latents per activation
    model: str | None = None
    hook: str | None = None
    trained_here: bool = False  # whether sae_sweeps has trained it
    # how activations must be normalised before the SAE encodes them, if the format has no SAEs that normalise
    input_normalization: str = "none"
    directions_of: str | None = None  # for a meta-SAE: the SAE whose decoder directions it reconstructs


# key of `input_normalization` in the configuration files of libraries that cannot normalise activations
NORMALIZATION_KEY = "normalize_activations"
