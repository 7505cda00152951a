"""Copies the modules of a language model without its weights, which TransformerLens and the copy then share."""

import copy
import logging
from itertools import chain
from typing import Any

from torch import Tensor

from sae_sweeps.runtime.errors import first_line

log = logging.getLogger(__name__)


def share_weights(model: Any) -> Any | None:
    """Return a copy of the modules of a model of transformers, with its very weights; None, with a log line, if not.

    The copy has a configuration of its own. Call it before TransformerLens wraps the model.
    """
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    try:
        return copy.deepcopy(model, shared)
    except Exception as error:  # a module can refuse to be copied in any way
        log.info("the activations are read with TransformerLens: the model cannot be copied (%s)", first_line(error))
        return None


def count_unshared(model: Any, bridge: Any) -> int:
    """Return the bytes of weights of a model from `share_weights` that the bridge has replaced by others."""
    kept = {_storage(tensor) for part in (bridge, bridge.original_model) for tensor in part.parameters()}
    own = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in model.parameters()}
    return sum(size for storage, size in own.items() if storage not in kept)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
