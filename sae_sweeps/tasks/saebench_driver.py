"""Runs an evaluation of the package sae-bench on an exported SAE. A script for another Python, without this project.

    python saebench_driver.py check REQUEST.json    prints a line of JSON: the versions, or why it cannot run
    python saebench_driver.py run REQUEST.json      writes NAME_custom_sae_eval_results.json into the folder `output`

The request has the entries eval, model, device, dtype and, to run, name, sae (a folder) and output.
"""

import json
import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any

# evaluation -> module in sae_bench.evals, class of its configuration, what it downloads from the hub besides the model
EVALS = {
    "absorption": ("absorption", "AbsorptionEvalConfig", ""),
    "ravel": ("ravel", "RAVELEvalConfig", "adamkarvonen/ravel_prompts"),
    "sparse_probing": ("sparse_probing", "SparseProbingEvalConfig", "LabHC/bias_in_bios and four other data sets"),
    "tpp": ("scr_and_tpp", "ScrAndTppEvalConfig", "LabHC/bias_in_bios and canrager/amazon_reviews_mcauley_1and5"),
    "scr": ("scr_and_tpp", "ScrAndTppEvalConfig", "LabHC/bias_in_bios and canrager/amazon_reviews_mcauley_1and5"),
}
MODEL_OF_RAVEL = {"gemma-2-2b", "pythia-160m-deduped"}  # the models that the evaluation knows


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Return the versions, or under `problem` and `fix` why the evaluation cannot run with the model here."""
    evaluation, model = request["eval"], request["model"]
    package, _, data = EVALS[evaluation]
    try:
        import_module(f"sae_bench.evals.{package}.main")
        loading = import_module("transformer_lens.loading_from_pretrained")
    except ImportError as error:
        return {"problem": f"sae-bench cannot be imported ({error})", "fix": "pip install sae-bench==0.6.0 there"}
    try:
        official = loading.get_official_model_name(model)
    except ValueError:
        problem = f"SAEBench loads the model from the hub, by a name of TransformerLens, which has no {model!r}"
        return {"problem": problem, "fix": "leave it out for this model"}
    if evaluation == "ravel" and model not in MODEL_OF_RAVEL:
        problem = f"SAEBench has RAVEL for {' and '.join(sorted(MODEL_OF_RAVEL))} only"
        return {"problem": problem, "fix": "leave it out for this model"}
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        cached = import_module("huggingface_hub").try_to_load_from_cache(official, "config.json")
        if not isinstance(cached, str):
            problem = f"HF_HUB_OFFLINE is set, and {official} is not in the cache of the hub"
            return {"problem": problem, "fix": f"download {' and '.join(filter(None, [official, data]))} first"}
    return {"versions": {name: version(name) for name in ("sae-bench", "sae-lens", "transformer-lens")}}


def run(request: dict[str, Any]) -> None:
    """Run the evaluation as sae-bench does, with its own settings but for the model, dtype and batch size."""
    evaluation = request["eval"]
    package, class_name, _ = EVALS[evaluation]
    config = getattr(import_module(f"sae_bench.evals.{package}.eval_config"), class_name)()
    sizes = import_module("sae_bench.sae_bench_utils.activation_collection").LLM_NAME_TO_BATCH_SIZE
    given = {"model_name": request["model"], "llm_dtype": request["dtype"], "perform_scr": evaluation == "scr"}
    given["llm_batch_size"] = sizes.get(request["model"], 32)
    for name, value in given.items():
        if hasattr(config, name):
            setattr(config, name, value)
    sae = import_module("sae_lens").SAE.load_from_disk(request["sae"], device=request["device"])
    sae.cfg.dtype = request["dtype"]
    saes = [(request["name"], sae)]
    module = import_module(f"sae_bench.evals.{package}.main")
    module.run_eval(config, saes, request["device"], request["output"], force_rerun=True)


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        asked = json.load(file)
    if sys.argv[1] == "check":
        print(json.dumps(check(asked)))
    else:
        run(asked)
