"""Settings of the task `saebench`, and the evaluations of SAEBench that it runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sae_sweeps.config.saes import SettingProblem

CORE = "core"
PEERS = ("absorption", "ravel", "sparse_probing", "tpp", "scr")  # evaluations that the package sae-bench computes
UNRELIABLE = ("tpp", "scr")
EVALS = (CORE, *PEERS)


@dataclass(kw_only=True)
class SAEBenchConfig:
    """The task `saebench`, which computes SAEBench's metrics."""

    # evaluations: core, which this project computes for all SAEs on one pass of the model; and those of the package
    # sae-bench: absorption, ravel, sparse_probing, tpp and scr. arXiv:2605.18229 finds the last two unreliable
    evals: list[str] = field(default_factory=lambda: [CORE])
    # batches whose predictions are compared with and without the SAE; fewer where the held-out text ends. The
    # commands in SAEBench's source have 200 and 2000 batches of 16 sequences
    reconstruction_batches: int = 200
    sparsity_batches: int = 2000  # batches for sparsity, reconstruction and densities; the first of them are the same
    batch_sequences: int = 16  # sequences in a batch: some of SAEBench's metrics are means over batches
    # keep the activations at BOS, end-of-text and padding tokens as they are when the others are replaced
    exclude_special_tokens: bool = True
    python: str | None = None  # Python with the package sae-bench, for all evaluations but core; None: this one

    def find_problems(self) -> Iterator[SettingProblem]:
        """Yield a problem for each setting that cannot work."""
        if not self.evals or not set(self.evals) <= set(EVALS) or len(set(self.evals)) < len(self.evals):
            problem = f"must be a list of evaluations, each once: {', '.join(EVALS)}"
            yield SettingProblem("evals", problem, "'saebench.evals=[core]'")
        for name in ("reconstruction_batches", "sparsity_batches", "batch_sequences"):
            if getattr(self, name) < 1:
                yield SettingProblem(name, "must be at least 1", f"saebench.{name}=16")
