"""Trains the SAEs of a sweep with SAELens' MultiSAETrainingRunner, which runs the language model once for all of them.

    python saelens_sweep.py '{"model": FOLDER, "text": FILE, "points": [...], ...}'   # sweeps_of_peers.py has the rest

The library's defaults, but for what makes the work equal: text, context, tokens, batch, learning rate; neither
evaluations nor logging.
"""

import json
import sys
import tempfile

import spec as specs
from datasets import Dataset
from sae_lens import LoggingConfig, TrainingSAE
from sae_lens.multi_sae_training_runner import MultiSAETrainingRunner, MultiSAETrainingRunnerConfig


def main() -> None:
    """Train the SAEs and print a line of JSON."""
    spec = specs.read(sys.argv)
    saes, hooks = {}, {}
    for number, point in enumerate(spec["points"]):
        architecture = point["sae"]
        make = TrainingSAE.get_sae_config_class_for_architecture(architecture)
        options = {"l0_coefficient": 1.0} if architecture == "jumprelu" else {"k": spec["k"]}
        saes[str(number)] = make(d_in=spec["width"], d_sae=point["dict_size"], **options)
        hooks[str(number)] = specs.name_module(point["hook"])
    with tempfile.TemporaryDirectory() as folder:
        config = MultiSAETrainingRunnerConfig(
            saes=saes,
            hook_names=hooks,
            model_name=spec["model"],
            model_class_name="AutoModelForCausalLM",
            context_size=spec["seq_len"],
            training_tokens=spec["tokens"],
            train_batch_size_tokens=spec["batch"],
            store_batch_size_prompts=32,
            n_batches_in_buffer=16,
            lr=spec["lr"],
            logger=LoggingConfig(log_to_wandb=False),
            checkpoint_path=f"{folder}/checkpoints",
            output_path=f"{folder}/output",
            streaming=False,
        )
        runner = MultiSAETrainingRunner(config, override_dataset=Dataset.from_dict({"text": specs.read_texts(spec)}))
        runner.run()
    print(json.dumps({"trained": len(saes)}))


if __name__ == "__main__":
    main()
