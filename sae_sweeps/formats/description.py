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
    is_centered: bool = False  # whether the mean over the width is subtracted from the activations
    prepend_bos: bool | None = None  # whether the sequences of the training began with BOS
    context_size: int | None = None  # tokens in a sequence of the training

    def to_digest_text(self) -> str:
        """Return the text that enters the digest of an SAE, and so the names of its studies and exports.

        It must never change for an SAE that is used as before, so it has the names that two fields had at first, and a
        later field only if it changes what the SAE computes.
        """
        first_names = {"input_normalization": "fed", "directions_of": "of_directions"}
        later = {"prepend_bos", "context_size"} | ({"is_centered"} if not self.is_centered else set())
        values = (
            f"{first_names.get(field.name, field.name)}={getattr(self, field.name)!r}"
            for field in fields(self)
            if field.name not in later
        )
        return f"Description({', '.join(values)})"


# key of `input_normalization` in the configuration files of libraries that cannot normalise activations
NORMALIZATION_KEY = "normalize_activations"
