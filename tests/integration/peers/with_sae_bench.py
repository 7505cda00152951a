"""Run by a Python with sae-bench: its core evaluation of our SAEs, on given tokens and the weights of a GPT-2.

with_sae_bench.py FOLDER MODEL: reads FOLDER/request.json (batches and ids), FOLDER/tokens.safetensors and the SAEs in
FOLDER/ours; writes FOLDER/theirs/CASE/NAME.json in sae-bench's layout, CASE: whether special tokens are excluded from
the reconstruction. Checks the files FOLDER/results/*.json against the layout.
"""

import json
import sys
from pathlib import Path

import torch
from pydantic import TypeAdapter
from sae_bench.evals.core import main as core
from sae_bench.evals.core.eval_config import CoreEvalConfig
from sae_bench.evals.core.eval_output import CoreEvalOutput
from sae_bench.sae_bench_utils.general_utils import load_and_format_sae
from sae_lens import SAE
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2LMHeadModel

folder, model_folder = map(Path, sys.argv[1:])
request = json.loads((folder / "request.json").read_text())
tokens = load_file(folder / "tokens.safetensors")["tokens"]


class Tokens:
    """What the evaluation uses of SAELens' ActivationsStore."""

    context_size, store_batch_size_prompts = tokens.shape[1], request["sequences"]

    def __init__(self):
        self.first = 0

    def get_batch_tokens(self, count):
        self.first += count
        return tokens[self.first - count : self.first]

    def reset_input_dataset(self):
        self.first = 0


def load_model():
    theirs = GPT2LMHeadModel.from_pretrained(model_folder)
    given = theirs.config
    config = HookedTransformerConfig(
        n_layers=given.n_layer,
        d_model=given.n_embd,
        n_ctx=given.n_positions,
        d_head=given.n_embd // given.n_head,
        n_heads=given.n_head,
        d_vocab=given.vocab_size,
        act_fn="gelu_new",
        eps=given.layer_norm_epsilon,
        normalization_type="LN",
        device="cpu",
    )
    model = HookedTransformer(config)
    unprocessed = {
        "fold_ln": False,
        "center_writing_weights": False,
        "center_unembed": False,
        "fold_value_biases": False,
    }
    model.load_and_process_state_dict(convert_gpt2_weights(theirs, config), **unprocessed)
    logits = theirs(tokens[:2]).logits
    torch.testing.assert_close(model(tokens[:2]), logits, rtol=1e-4, atol=1e-4)
    return model


@torch.no_grad()
def evaluate(name, sae, model, excludes):
    config = CoreEvalConfig(
        model_name="model",
        batch_size_prompts=request["sequences"],
        n_eval_reconstruction_batches=request["reconstruction"],
        n_eval_sparsity_variance_batches=request["sparsity"],
        exclude_special_tokens_from_reconstruction=excludes,
        context_size=tokens.shape[1],
        **{f"compute_{what}": True for what in ("kl", "ce_loss", "l2_norms", "sparsity_metrics", "variance_metrics")},
        compute_featurewise_density_statistics=True,
        compute_featurewise_weight_based_metrics=True,
    )
    scalars, latents = core.run_evals(sae, Tokens(), model, config, ignore_tokens=set(request["ignored"]))
    scalars["misc_metrics"] = core.calculate_misc_metrics(latents)
    found = {"metrics": scalars, "feature_metrics": latents, "eval_cfg": config, "sae_id": name, "sae_set": "tiny"}
    file = folder / "theirs" / str(excludes) / f"{name}.json"
    core.save_single_eval_result(core.replace_nans_with_negative_one(found), "id", "v", "hash", file, sae)


torch.set_num_threads(1)
for case in (True, False):
    (folder / "theirs" / str(case)).mkdir(parents=True)
language_model = load_model()
for path in sorted((folder / "ours").iterdir()):
    _, formatted, _ = load_and_format_sae("tiny", SAE.load_from_disk(path), "cpu")
    for case in (True, False):
        evaluate(path.name, formatted, language_model, case)
for path in sorted((folder / "results").iterdir()):
    read = TypeAdapter(CoreEvalOutput).validate_json(path.read_text())
    assert read.eval_type_id == "core", path
    assert json.loads(read.to_json()).keys() == json.loads(path.read_text()).keys()
