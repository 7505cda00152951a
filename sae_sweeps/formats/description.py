"""What the files of an SAE declare, read without loading the weights."""

from dataclasses import dataclass, fields


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

    def to_digest_text(self) -> str:
        """Return the text that enters the digest of an SAE, and so the names of its studies and exports.

        It must never change, so it has the names that two fields had at first.
        """
        first_names = {"input_normalization": "fed", "directions_of": "of_directions"}
        values = (f"{first_names.get(field.name, field.name)}={getattr(self, field.name)!r}" for field in fields(self))
        return f"Description({', '.join(values)})"


# key of `input_normalization` in the configuration files of libraries that cannot normalise activations
NORMALIZATION_KEY = "normalize_activations"
