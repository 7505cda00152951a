"""Settings of the tasks that use trained SAEs, such as stitch, meta_sae, latents, steer, probe, export and publish."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(kw_only=True)
class StitchConfig:
    """The task `stitch`, which compares a small SAE with a larger one."""

    threshold: float = 0.7  # decoder cosine below which a latent of the large SAE counts as novel
    # cosines for which the numbers of novel latents are also reported
    thresholds: list[float] = field(default_factory=lambda: [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    tokens: int = 32_768  # held-out activations for the change in MSE and the interpolation
    ce_tokens: int = 8_192  # held-out activations for the CE degradation
    positions: int = 20  # number of points on each part of an interpolation curve
    ce_positions: int = 8  # number of points on a curve at which the CE degradation is measured
    seed: int = 0  # random seed for the order of the latents in the controls


@dataclass(kw_only=True)
class MetaConfig:
    """The tasks `meta_sae` and `meta_sizes`, which train an SAE on decoder directions: of one SAE, or of all sizes."""

    dict_size: int | None = None  # number of meta-latents; None: a quarter of the number of decomposed latents
    k: int = 4  # active meta-latents per decomposed latent, on average
    seed: int = 0  # random seed for the initialisation, the order of the directions, and the shuffled control
    include_dead: bool = False  # also decompose latents that are never active in latents.tokens activations
    steps: int = 2000  # number of training steps
    batch_size: int = 1024  # decoder directions per training step
    lr: float = 4e-3  # learning rate, which falls linearly to 0 over the last fifth of the steps
    checkpoint_every: int = 500  # steps between checkpoints


@dataclass(kw_only=True)
class LatentsConfig:
    """Descriptions of latents (examples and promoted tokens) in the tasks `latents` and `meta_sae`."""

    tokens: int = 100_000  # held-out activations to search for examples
    examples: int = 10  # number of strongest activations to show per latent, each from another sequence
    before: int = 12  # tokens of context before an example
    after: int = 6  # tokens of context after an example
    promoted: int = 10  # number of output tokens to show per latent: those with the largest logit-lens value
    # JSON lines with a label of a latent each: sae, latent, text, and optionally score and source. task=report,
    # task=latents and task=export format=neuronpedia check and keep them, in place of those of an earlier file; every
    # later report and export has them. None: those that the sweep has
    labels: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return the settings by name on which the descriptions depend."""
        return {name: value for name, value in asdict(self).items() if name != "labels"}


@dataclass(kw_only=True)
class SteerConfig:
    """The task `steer`, which changes latents at the hook and shows what the language model predicts then."""

    prompts: list[str] = field(default_factory=list)  # texts whose next token is predicted; required for task=steer
    # words whose probability as the next word is shown; for a word of several tokens, that of the first one
    words: list[str] = field(default_factory=list)
    clamp: list[str] = field(default_factory=list)  # latents with the activation that they get, such as [12:4.0,15:0.5]
    add: list[str] = field(default_factory=list)  # latents with what their activation is raised by, such as [12:1.5]
    remove: list[int] = field(default_factory=list)  # latents whose activation becomes 0
    # folder of a meta_sae study of the SAE. Then `clamp`, `add` and `remove` are about meta-latents, whose weights in
    # the decoder directions of the latents are changed; None: they are about latents
    meta: str | None = None
    of: list[int] = field(default_factory=list)  # with `meta`: latents whose directions are changed; empty: all
    positions: str = "all"  # positions of a prompt at which activations are changed: all, or last
    top: int = 10  # number of next tokens to show whose log-probability rises or falls most


def parse_changes(changes: list[str]) -> dict[int, float]:
    """Return latent -> number for texts such as "12:4.0". Raises: ValueError for any other text, or a latent twice."""
    parsed: dict[int, float] = {}
    for change in changes:
        latent, _, value = change.partition(":")
        if not (latent.strip().isdecimal() and math.isfinite(float(value))) or int(latent) in parsed:
            raise ValueError(change)
        parsed[int(latent)] = float(value)
    return parsed


@dataclass(kw_only=True)
class ProbeConfig:
    """The task `probe`: classifiers of texts on a few latents, beside one on the activations themselves."""

    # folder of data sets: files .csv or .jsonl with a column text (or prompt) and a column label (or target) of two
    # classes. None: the 113 sets of sae-probes, which python -m sae_sweeps.cli.fetch_probes fetches
    data: str | None = None
    sets: list[str] = field(
        default_factory=list
    )  # names of the data sets to use, such as 5_hist_fig_ismale; empty: all
    # numbers of latents that a classifier uses: those whose mean activations differ most between the classes. A number
    # above that of an SAE's latents stands for all of them
    ks: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    penalty: str = "l1"  # penalty of the classifiers on latents: l1, as in SAEBench, or l2, as of those on activations
    rows: int = 5000  # first rows of a data set that are used
    # last tokens of a text that the model reads, with the BOS token; fewer if the model takes fewer
    max_tokens: int = 1024
    seed: int = 42  # random seed for the choice of the texts to train on, and of the classifiers; 42 as in sae-probes


@dataclass(kw_only=True)
class ExportConfig:
    """The task `export`, and `normalized` for the task `publish` as well."""

    folder: str | None = None  # folder to write to; None: export/FORMAT/ in the sweep's folder
    # in a format without input normalisation: write the SAE for activations that the user normalises before encoding
    normalized: bool = False


@dataclass(kw_only=True)
class PublishConfig:
    """The task `publish`."""

    repo: str | None = None  # repository on the Hugging Face hub, OWNER/NAME; required for task=publish
    private: bool = True  # create the repository as private
    dry_run: bool = False  # list the files without uploading them


@dataclass(kw_only=True)
class RemoveConfig:
    """The task `remove`."""

    # of the points: any of failed, interrupted, waiting and pruned
    states: list[str] = field(default_factory=lambda: ["failed"])
    dry_run: bool = True  # list the points without removing them


@dataclass(kw_only=True)
class ScalingConfig:
    """The task `scaling`, which fits how the NMSE of a sweep's points falls with size, k and tokens."""

    # numbers of latents to predict the NMSE of; points that have them are not used for the law. Empty: those of the
    # sweep, if `tokens` is not empty
    dict_sizes: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # the same for training.tokens
    # hours for training one more SAE on this machine; the task then proposes its size and tokens. None: it does not
    hours: float | None = None
