"""Times the core metrics of SAEBench for one SAE and for several, beside the language model's own passes.

    PYTHONPATH=. .venv/bin/python benchmarks/saebench_cost.py [SAES] [LATENTS] [BATCHES]

On the embedded model, for TopK SAEs with random weights: the time depends on sizes alone.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.config import ModelConfig
from sae_sweeps.evaluation.saebench import CoreSettings, measure_core
from sae_sweeps.evaluation.saebench_weights import measure_weights
from sae_sweeps.saes import InferenceSAE, TopKSAE

SEQUENCES, LENGTH, K = 16, 128, 32
REPEATS = 3
MODEL = Path(__file__).parents[1] / "embedded" / "model"


def time_best(call: Callable[[], object]) -> float:
    """Return the shortest time of a call, in seconds of the processor, which other programs hardly change."""
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


def main(saes: int = 6, latents: int = 3072, batches: int = 4) -> None:
    """Print the times for batches of 16 sequences of 128 tokens."""
    model = LanguageModel(ModelConfig(name=str(MODEL), hook="blocks.3.hook_resid_pre"), torch.device("cpu"))
    tokens_NS = torch.randint(1, 4000, (batches * SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(0))
    settings = CoreSettings(batches, batches, SEQUENCES, exclude_special_tokens=True)

    def make(seed: int) -> InferenceSAE:
        sae = TopKSAE(model.d_model, latents, K, seed=seed).for_inference()
        assert isinstance(sae, InferenceSAE), "what is measured is a saved SAE"
        return sae

    made = {str(seed): make(seed) for seed in range(saes)}
    at_once = max(1, model.logits_at_once // LENGTH)
    plain = time_best(lambda: [model.logits(part) for part in tokens_NS.split(at_once)])
    weights = time_best(lambda: measure_weights(made["0"]))
    times = {}
    for count in (1, saes):
        group = dict(list(made.items())[:count])
        times[count] = time_best(lambda group=group: measure_core(model, group, tokens_NS, settings))  # type: ignore[misc]
    tokens = tokens_NS.numel()
    print(f"{tokens:,} tokens, {latents:,} latents, {torch.get_num_threads()} threads")
    print(f"a pass of the language model with logits: {plain:.2f} s")
    print(f"of the weights of an SAE alone:           {weights:.2f} s")
    for count, seconds in times.items():
        print(
            f"core metrics of {count} SAEs: {seconds:.2f} s, {seconds / plain:.1f} passes, {seconds / count:.2f} s each"
        )
    (few, first), (many, last) = times.items()
    if many > few:
        print(
            f"one more SAE: {(last - first) / (many - few):.2f} s, {(last - first) / (many - few) / plain:.1f} passes"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
