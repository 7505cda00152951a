"""The units of which held-out text is a sample: its documents, or its sequences where there are few documents.

A metric that is measured on some text is uncertain because other text has other documents. Activations of one document
resemble each other, so a document counts as one draw, however long it is.
"""

# N sequences, S positions, U units

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the report names units, and starts sooner without torch
    from torch import Tensor

FEW = 20  # documents below which sequences are the units: so few say little about how documents differ
DOCUMENT, SEQUENCE = "document", "sequence"
BLOCK = "activation block"  # of synthetic activations, which do not depend on each other


@dataclass(frozen=True)
class Units:
    """The units of held-out sequences.

    name: "document" or "sequence"; "activation block" for synthetic activations
    unit_NS: the unit of each position, from 0 to U - 1; of a unit without positions that are data there is no number
    count: U
    fingerprint: SHA-256 of the tokens, of the positions that are data, and of their units
    """

    name: str
    unit_NS: "Tensor"
    count: int
    fingerprint: str


def find_units(tokens_NS: "Tensor", document_NS: "Tensor", is_data_NS: "Tensor") -> Units:
    """Return the units of held-out sequences: documents, or sequences where fewer than `FEW` documents have data.

    document_NS: the number of the document of each position
    is_data_NS: which positions are data
    """
    import torch

    name, from_NS = DOCUMENT, document_NS
    if len(document_NS[is_data_NS].unique()) < FEW:
        name, from_NS = SEQUENCE, torch.arange(len(tokens_NS))[:, None].expand_as(tokens_NS)
    known_U = from_NS[is_data_NS].unique()
    unit_NS = torch.searchsorted(known_U, from_NS.contiguous()).clamp(max=len(known_U) - 1)
    digest = hashlib.sha256(name.encode())
    for part_NS in (tokens_NS, is_data_NS, unit_NS.where(is_data_NS, -1)):
        digest.update(part_NS.long().contiguous().numpy().tobytes())
    return Units(name, unit_NS, len(known_U), digest.hexdigest())
