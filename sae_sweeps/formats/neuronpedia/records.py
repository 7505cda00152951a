"""The lines of Neuronpedia's export files, made from what was found about an SAE and its latents."""

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sae_sweeps.formats.neuronpedia.schema import (
    LEFT_EMPTY,
    STRENGTH,
    STRENGTH_OF_NONE,
    VECTOR_HOOKS,
    VECTOR_LENGTH,
)

Row = dict[str, Any]
BASE_36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The facts about an SAE, a source on Neuronpedia, and its release.

    layer, hook_type: of the hook blocks.LAYER.HOOK_TYPE
    dimension: entries of an activation; layers: of the model, 0 if unknown
    prompts, prompt_tokens: number of token sequences that were read, and their length
    """

    model: str
    model_title: str
    owner: str
    source_set: str
    id: str
    release: str
    title: str
    description: str
    creator: str
    creator_id: str
    url: str | None
    layer: int
    hook_type: str
    dimension: int
    layers: int
    prompts: int
    prompt_tokens: int
    dataset: str | None
    hub_repo: str | None
    hub_folder: str | None
    notes: str

    @property
    def takes_vectors(self) -> bool:
        """Return whether Neuronpedia takes vectors of this hook and width, each in a request of its own."""
        return self.hook_type in VECTOR_HOOKS and self.dimension <= VECTOR_LENGTH

    def build_records(self) -> dict[str, Row]:
        """Return the lines of the files that have one."""
        urls = [self.url] if self.url else []
        creator = {"creatorName": self.creator, "creatorEmail": None, "creatorId": self.creator_id}
        release = {
            "name": self.release,
            "description": self.title,
            "descriptionShort": self.title,
            **creator,
            "creatorNameShort": self.creator,
            "visibility": "PUBLIC",
            "isNewUi": False,
            "featured": False,
            "urls": urls,
            "defaultSourceSetName": self.source_set,
            "defaultSourceId": self.id,
            "defaultUmapSourceIds": [],
        }
        return {
            "release": release,
            "model": self._build_model(),
            "sourceset": self._build_set(urls, creator),
            "source": self._build_source(),
        }

    def _build_model(self) -> Row:
        return {
            "id": self.model,
            "instruct": self.model.endswith(("-it", "-instruct")),
            "creatorId": self.creator_id,
            "displayNameShort": self.model_title,
            "displayName": self.model_title,
            "tlensId": None,
            "dimension": self.dimension,
            "visibility": "PUBLIC",
            "defaultSourceSetName": None,
            "defaultSourceId": None,
            "inferenceEnabled": False,
            "layers": self.layers,
            "neuronsPerLayer": 0,
            "owner": self.owner,
            "website": None,
        }

    def _build_set(self, urls: list[str], creator: Row) -> Row:
        hidden = dict.fromkeys(("showDfa", "showCorrelated", "showHeadAttribution", "showUmap"), False)
        return {
            "modelId": self.model,
            "name": self.source_set,
            **creator,
            "hasDashboards": True,
            "visibility": "PUBLIC",
            "description": self.description,
            "type": "",
            "urls": urls,
            "releaseName": self.release,
            "defaultOfModelId": None,
            "defaultRange": 1,
            "defaultShowBreaks": True,
            **hidden,
        }

    def _build_source(self) -> Row:
        unknown = ("saelensConfig", "saelensRelease", "saelensSaeId", "defaultOfModelId")
        return {
            "id": self.id,
            "modelId": self.model,
            "setName": self.source_set,
            "creatorId": self.creator_id,
            "hasDashboards": True,
            "inferenceEnabled": False,
            "inferenceHosts": [],
            **dict.fromkeys(unknown),
            "hfRepoId": self.hub_repo,
            "hfFolderId": self.hub_folder,
            "visibility": "PUBLIC",
            **dict.fromkeys(("hasUmap", "hasUmapLogSparsity", "hasUmapClusters"), False),
            "num_prompts": self.prompts,
            "num_tokens_in_prompt": self.prompt_tokens,
            "dataset": self.dataset,
            "notes": self.notes,
        }

    def build_feature(self, row: Row, activations: Sequence[Row], vector: Sequence[float], label: str | None) -> Row:
        """Return the line of a latent. row: of a latents table; vector: empty for none; label: of the vector"""
        largest = max((one["maxValue"] for one in activations), default=0.0)
        strongest, weakest = (list(row[name] or []) for name in ("promoted", "suppressed"))
        width, counts = row["histogram"]["width"], row["histogram"]["counts"]
        logits = row["logits"] or {"low": 0.0, "width": 0.0, "counts": []}
        return {
            "modelId": self.model,
            "layer": self.id,
            "index": str(row["latent"]),
            "sourceSetName": self.source_set,
            "creatorId": self.creator_id,
            "maxActApprox": max(largest, 0.0),
            "hasVector": bool(vector),
            "vector": list(vector),
            "vectorLabel": label if vector else None,
            "vectorDefaultSteerStrength": _choose_strength(largest) if vector else None,
            "hookName": f"blocks.{self.layer}.{self.hook_type}" if vector else None,
            "frac_nonzero": shorten(row["frequency"]),
            "pos_str": [one["token"] for one in strongest],
            "pos_values": [shorten(one["logit"]) for one in strongest],
            "neg_str": [one["token"] for one in weakest],
            "neg_values": [shorten(one["logit"]) for one in weakest],
            "freq_hist_data_bar_heights": counts,
            "freq_hist_data_bar_values": [shorten(width * (at + 0.5)) for at in range(len(counts))],
            "logits_hist_data_bar_heights": logits["counts"],
            "logits_hist_data_bar_values": [
                shorten(logits["low"] + logits["width"] * (at + 0.5)) for at in range(len(logits["counts"]))
            ],
            **{name: [] for name in LEFT_EMPTY},
        }

    def build_activation(self, latent: int, number: int, example: Row, strongest: float) -> Row:
        """Return the line of an example.

        number: of the example among those of the latent, the strongest first
        strongest: activation of the first of them
        """
        tokens, values = split_tokens(example)
        largest = max(values)
        return {
            "id": make_id(self.model, self.id, "activation", latent, number),
            "modelId": self.model,
            "layer": self.id,
            "index": str(latent),
            "creatorId": self.creator_id,
            "tokens": tokens,
            "values": values,
            "maxValue": largest,
            "maxValueTokenIndex": values.index(largest),
            "minValue": min(values),
            "qualifyingTokenIndex": bisect_right(example["cuts"], len(example["before"])),
            "binMin": -1.0,  # what marks the strongest activations, in place of those of an interval
            "binMax": shorten(strongest),
            "binContains": -1.0,
            "dataIndex": None,
            "dataSource": self.dataset,
            "dfaValues": [],
            "dfaTargetIndex": None,
            "dfaMaxValue": None,
            "lossValues": [],
            "logitContributions": None,
        }

    def build_explanation(self, latent: int, text: str, notes: str | None) -> Row:
        """Return the line of a label. Its type and model are empty, as a database has only those that it knows."""
        return {
            "id": make_id(self.model, self.id, "explanation", latent, 0),
            "modelId": self.model,
            "layer": self.id,
            "index": str(latent),
            "description": text,
            "authorId": self.creator_id,
            "typeName": None,
            "explanationModelName": None,
            "notes": notes,
        }

    def build_vector(self, feature: Row) -> Row:
        """Return a steering vector as the site takes it in a request. feature: a line with a vector"""
        strength = feature["vectorDefaultSteerStrength"]
        return {
            "modelId": self.model,
            "layerNumber": self.layer,
            "hookType": self.hook_type,
            "vector": feature["vector"],
            "vectorDefaultSteerStrength": max(-STRENGTH, min(strength, STRENGTH)),
            "vectorLabel": feature["vectorLabel"],
        }


def _choose_strength(largest: float) -> float:
    """Return the default strength of a vector: the largest activation of the latent that was found."""
    return largest if largest > 0 else STRENGTH_OF_NONE


def split_tokens(example: Row) -> tuple[list[str], list[float]]:
    """Return the tokens of an example of a latents table, and the latent's activation on each.

    Tokens that are parts of one character are one token here, with the activation of the largest magnitude.
    """
    text = example["before"] + example["token"] + example["after"]
    cuts = example["cuts"]
    bounds = [0, *cuts, len(text)]
    values = [0.0] * (len(cuts) + 1)
    found = [(one["start"], one["activation"]) for one in example["active"]]
    for start, activation in (*found, (len(example["before"]), example["activation"])):
        at = bisect_right(cuts, start)
        values[at] = max(values[at], shorten(activation), key=abs)
    return [text[start:stop] for start, stop in itertools.pairwise(bounds)], values


def make_id(*parts: object) -> str:
    """Return an id in the form of a CUID, a c and 24 letters and digits, that depends only on `parts`."""
    number = int.from_bytes(hashlib.sha256("\n".join(map(str, parts)).encode()).digest(), "big")
    letters = []
    for _ in range(24):
        number, letter = divmod(number, 36)
        letters.append(BASE_36[letter])
    return "c" + "".join(letters)


def shorten(value: float) -> float:
    """Return a number with the digits that a float32 has, as text shows them: the same float32."""
    return float(f"{value:.9g}")
