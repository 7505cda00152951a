"""The fields of Neuronpedia's export files, with what each may hold: a shape of `runtime.records`.

They are the columns of Neuronpedia's database that its importer fills (github.com/hijohnnylin/neuronpedia:
utils/neuronpedia-utils, apps/webapp/prisma/schema.prisma). Times are left out, and become those of the import, so that
an export of the same results has the same bytes; so are the fields of attention heads.
"""

from sae_sweeps.runtime.records import Shape

BATCH = 1024  # latents per file
# of the site's vectors: places of hooks that it takes, the longest vector, and the largest strength of either sign
VECTOR_HOOKS = ("hook_resid_pre", "hook_resid_post")
VECTOR_LENGTH = 24_576
STRENGTH = 300.0
STRENGTH_OF_NONE = 10.0  # of a latent that was never active: Neuronpedia's default

_TEXT, _NUMBER = (str, None), (float, None)

RELEASE: dict[str, Shape] = {
    "name": str,
    "description": str,
    "descriptionShort": _TEXT,
    "creatorName": str,
    "creatorNameShort": _TEXT,
    "creatorId": str,
    "creatorEmail": _TEXT,
    "visibility": str,
    "isNewUi": bool,
    "featured": bool,
    "urls": [str],
    "defaultSourceSetName": _TEXT,
    "defaultSourceId": _TEXT,
    "defaultUmapSourceIds": [str],
}
MODEL: dict[str, Shape] = {
    "id": str,
    "instruct": bool,
    "creatorId": str,
    "displayNameShort": str,
    "displayName": str,
    "tlensId": _TEXT,
    "dimension": (int, None),
    "visibility": str,
    "defaultSourceSetName": _TEXT,
    "defaultSourceId": _TEXT,
    "inferenceEnabled": bool,
    "layers": int,
    "neuronsPerLayer": int,
    "owner": str,
    "website": _TEXT,
}
SOURCE_SET: dict[str, Shape] = {
    "modelId": str,
    "name": str,
    "creatorId": str,
    "hasDashboards": bool,
    "visibility": str,
    "description": str,
    "type": str,
    "creatorName": str,
    "urls": [str],
    "creatorEmail": _TEXT,
    "releaseName": _TEXT,
    "defaultOfModelId": _TEXT,
    "defaultRange": int,
    "defaultShowBreaks": bool,
    "showDfa": bool,
    "showCorrelated": bool,
    "showHeadAttribution": bool,
    "showUmap": bool,
}
SOURCE: dict[str, Shape] = {
    "id": str,
    "modelId": str,
    "setName": str,
    "creatorId": str,
    "hasDashboards": bool,
    "inferenceEnabled": bool,
    "inferenceHosts": [str],
    "saelensConfig": _TEXT,
    "saelensRelease": _TEXT,
    "saelensSaeId": _TEXT,
    "hfRepoId": _TEXT,
    "hfFolderId": _TEXT,
    "visibility": str,
    "defaultOfModelId": _TEXT,
    "hasUmap": bool,
    "hasUmapLogSparsity": bool,
    "hasUmapClusters": bool,
    "num_prompts": (int, None),
    "num_tokens_in_prompt": (int, None),
    "dataset": _TEXT,
    "notes": _TEXT,
}
# lists that pair up: names and values, heights and places of bars
PAIRED = (
    ("neg_str", "neg_values"),
    ("pos_str", "pos_values"),
    ("freq_hist_data_bar_heights", "freq_hist_data_bar_values"),
    ("logits_hist_data_bar_heights", "logits_hist_data_bar_values"),
)
# lists that stay empty: what they hold is not computed here
LEFT_EMPTY = (
    "topkCosSimIndices",
    "topkCosSimValues",
    "neuron_alignment_indices",
    "neuron_alignment_values",
    "neuron_alignment_l1",
    "correlated_neurons_indices",
    "correlated_neurons_pearson",
    "correlated_neurons_l1",
    "correlated_features_indices",
    "correlated_features_pearson",
    "correlated_features_l1",
    "decoder_weights_dist",
)
FEATURE: dict[str, Shape] = {
    "modelId": str,
    "layer": str,
    "index": str,
    "sourceSetName": _TEXT,
    "creatorId": _TEXT,
    "maxActApprox": _NUMBER,
    "hasVector": bool,
    "vector": [float],
    "vectorLabel": _TEXT,
    "vectorDefaultSteerStrength": _NUMBER,
    "hookName": _TEXT,
    "frac_nonzero": float,
    **{texts: [str] for texts, _ in PAIRED[:2]},
    **{heights: [float] for heights, _ in PAIRED[2:]},
    **{values: [float] for _, values in PAIRED},
    **{name: [float] for name in LEFT_EMPTY},
}
ACTIVATION: dict[str, Shape] = {
    "id": str,
    "modelId": str,
    "layer": str,
    "index": str,
    "creatorId": str,
    "tokens": [str],
    "values": [float],
    "maxValue": float,
    "maxValueTokenIndex": int,
    "minValue": float,
    "qualifyingTokenIndex": (int, None),
    "binMin": _NUMBER,
    "binMax": _NUMBER,
    "binContains": _NUMBER,
    "dataIndex": _TEXT,
    "dataSource": _TEXT,
    "dfaValues": [float],
    "dfaTargetIndex": (int, None),
    "dfaMaxValue": _NUMBER,
    "lossValues": [float],
    "logitContributions": _TEXT,
}
EXPLANATION: dict[str, Shape] = {
    "id": str,
    "modelId": str,
    "layer": str,
    "index": str,
    "description": str,
    "authorId": str,
    "typeName": _TEXT,
    "explanationModelName": _TEXT,
    "notes": _TEXT,
}
# a request to the site's address /api/vector/new
VECTOR: dict[str, Shape] = {
    "modelId": str,
    "layerNumber": int,
    "hookType": str,
    "vector": [float],
    "vectorDefaultSteerStrength": float,
    "vectorLabel": str,
}

FILES = {"release": RELEASE, "model": MODEL, "sourceset": SOURCE_SET, "source": SOURCE}  # NAME.jsonl, one line each
# NAME/batch-N.jsonl.gz, a line per row; without rows there is no file
FOLDERS = {"features": FEATURE, "activations": ACTIVATION, "explanations": EXPLANATION, "vectors": VECTOR}
