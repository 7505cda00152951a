"""Trains the SAEs of a sweep with dictionary_learning's trainSAE, which runs the language model once for all of them.

    python dictionary_learning_sweep.py '{"model": FOLDER, ...}'   # sweeps_of_peers.py has the rest

The library's defaults, but for what makes the work equal: text, context, tokens, batch, learning rate. A call reads one
hook, so several hooks take a call each. It truncates each text at the context, so it is given pieces of one context.
"""

import itertools
import json
import sys

import spec as specs
from dictionary_learning.buffer import ActivationBuffer
from dictionary_learning.trainers import BatchTopKTrainer, JumpReluTrainer, TopKTrainer
from dictionary_learning.training import trainSAE
from nnsight import LanguageModel

TRAINERS = {"batchtopk": BatchTopKTrainer, "topk": TopKTrainer, "jumprelu": JumpReluTrainer}


def main() -> None:
    """Train the SAEs and print a line of JSON."""
    spec = specs.read(sys.argv)
    model = LanguageModel(spec["model"], device_map="cpu", dispatch=True)
    pieces = specs.cut_texts(spec, model.tokenizer)
    steps = spec["tokens"] // spec["batch"]
    for hook in dict.fromkeys(point["hook"] for point in spec["points"]):
        points = [point for point in spec["points"] if point["hook"] == hook]
        buffer = ActivationBuffer(
            itertools.cycle(pieces),
            model,
            specs.find_module(model, hook),
            d_submodule=spec["width"],
            n_ctxs=256,
            ctx_len=spec["seq_len"],
            refresh_batch_size=32,
            out_batch_size=spec["batch"],
        )
        trainSAE(buffer, [_make_config(spec, point, steps) for point in points], steps, device="cpu", log_steps=steps)
    print(json.dumps({"trained": len(spec["points"])}))


def _make_config(spec: dict, point: dict, steps: int) -> dict:
    sparsity = {"target_l0": spec["k"], "sparsity_warmup_steps": 0} if point["sae"] == "jumprelu" else {"k": spec["k"]}
    return {
        "trainer": TRAINERS[point["sae"]],
        "steps": steps,
        "activation_dim": spec["width"],
        "dict_size": point["dict_size"],
        "layer": specs.split_layer(point["hook"]),
        "lm_name": "model",
        "lr": spec["lr"],
        "warmup_steps": 0,
        "seed": point["seed"],
        "device": "cpu",
        **sparsity,
    }


if __name__ == "__main__":
    main()
