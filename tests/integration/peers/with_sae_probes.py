"""Run by a Python with sae-lens and sae-probes: probes an SAE with the code of sae-probes, on given activations.

Arguments: a folder with SET.safetensors per data set (acts_TD), the folder of the SAE, the numbers of latents with
commas between them, and the names of the data sets. Prints JSON: data set -> its results for each k, then of the
activations.
"""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from sae_lens import SAE
from safetensors.torch import load_file

folder, saved, ks, *names = sys.argv[1:]
HOOK, MODEL = "hook", "model"

# its __init__.py reads all data sets, and xgboost is imported but not needed
spec = importlib.util.find_spec("sae_probes")
package = ModuleType("sae_probes")
package.__path__ = list(spec.submodule_search_locations)
sys.modules |= {"xgboost": SimpleNamespace(), "sae_probes": package}
data = importlib.import_module("sae_probes.utils_data")
sizes = {name: len(data.read_numbered_dataset_df(name)) for name in names}
data.get_dataset_sizes = lambda: sizes
evals = importlib.import_module("sae_probes.run_sae_evals")
baselines = importlib.import_module("sae_probes.run_baselines")

cache, results = Path("cache"), Path("results")
(cache / f"model_activations_{MODEL}").mkdir(parents=True)
sae, found = SAE.load_from_disk(saved, device="cpu"), {}
for name in names:
    activations = load_file(f"{folder}/{name}.safetensors")["acts_TD"]
    torch.save(activations, cache / f"model_activations_{MODEL}" / f"{name}_{HOOK}.pt")
    evals.run_sae_eval(
        sae=sae,
        dataset=name,
        hook_name=HOOK,
        reg_type="l1",
        setting="normal",
        model_name=MODEL,
        model_cache_path=cache,
        device="cpu",
        ks=[int(k) for k in ks.split(",")],
        results_path=results,
    )
    baselines.run_baseline_dataset_layer(HOOK, name, "logreg", MODEL, cache, results)
    files = [*results.glob(f"sae_probes_*/*/{name}_*.json"), *results.glob(f"baseline_*/*/{name}_*.json")]
    found[name] = [row for file in files for row in json.loads(file.read_text())]
print(json.dumps(found))
