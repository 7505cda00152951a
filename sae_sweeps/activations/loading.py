"""Loads a language model and its tokenizer, and checks that what is loaded is what the files hold."""

# P sequences of a few tokens to try the model on, S positions, V vocabulary, D model width

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.activations.model_files import check_model_files, explain_refusal, find_model_file
from sae_sweeps.activations.model_info import read_model_info
from sae_sweeps.activations.shared_weights import count_unshared, share_weights
from sae_sweeps.config import ModelConfig
from sae_sweeps.config.wheel_models import describe_weights
from sae_sweeps.runtime.devices import resolve_reader
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import read_json
from sae_sweeps.runtime.paths import expand, expand_folder

log = logging.getLogger(__name__)

TRIED_TOKENS = 8  # tokens in a sequence that the model is tried on
FIRST_TRIED = 10  # the first of their ids; the lowest ids are often control tokens
OTHER_MODEL = "choose a model of another architecture, or another version of transformer-lens"
NAMED = 3  # names of weights in a message
UNSHARED = 0.1  # largest part of the weights that the model alone may have for itself


@dataclass
class Trial:
    """What the model of transformers, as it is loaded, computes for a few tokens.

    tokens_PS: two sequences that differ in their last token alone
    logits_PSV: its logits
    blocks: layer -> input and output (P, S, D) of its transformer block; empty if the blocks are not found
    rows: number of rows of the embedding; all token ids are below
    """

    tokens_PS: Tensor
    logits_PSV: Tensor
    blocks: dict[int, tuple[Tensor, Tensor]]
    rows: int


@dataclass
class LoadedModel:
    """A language model in the TransformerBridge of TransformerLens, its tokenizer, and the trial of the model alone.

    plain: the model alone with the same weights, if `model.reader` asks for it; see shared_weights.py
    """

    bridge: Any
    tokenizer: Any
    trial: Trial
    plain: Any | None = None


def load_model(config: ModelConfig, device: torch.device) -> LoadedModel:
    """Load a model and its tokenizer, with frozen weights, on a device.

    Raises: ConfigError if a file of the model is missing or damaged, if weights are missing or have another shape, if
    the model is no decoder with a language-model head, or if a library cannot load or run it.
    """
    check_model_files(config.name)
    read_model_info(config.name)
    weights = describe_weights(expand_folder(config.name, "model.name"))
    log.info("loading the language model %s in %s%s", config.name, config.dtype, f": {weights}" if weights else "")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        return _load(config, device)
    except ConfigError:
        raise
    except Exception as error:  # transformers and TransformerLens let exceptions of any library through
        raise explain_refusal(config.name, error, "the model cannot be loaded") from error


def _load(config: ModelConfig, device: torch.device) -> LoadedModel:
    import transformers
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources import transformers as bridge_source

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if hasattr(bridge_source, "helpers"):  # since version 4; it would pip install torchvision, to read images
        bridge_source.helpers._ensure_torchvision = lambda: False
    folder = expand(config.name, "model.name")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer("The first words, 1 2 3", add_special_tokens=False)["input_ids"]:
        fix = "add its tokenizer.json to the folder"
        raise ConfigError("model.name", config.name, "the tokenizer has no vocabulary: it turns text into nothing", fix)
    _forget_made_up_tokens(config.name, tokenizer)
    loader = _CheckedLoader(config.name, device, resolve_reader(config.reader, device.type) == "transformers")
    try:
        bridge = TransformerBridge.boot_transformers(
            folder,
            device=str(device),
            dtype=getattr(torch, config.dtype),
            tokenizer=deepcopy(tokenizer),  # TransformerLens gives its own the BOS and EOS tokens that it lacks
            model_class=loader,
        )
    except Exception as error:
        if loader.trial is None:
            raise  # transformers has not loaded it
        raise bridge_error(config.name, error) from error
    bridge.eval()
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    assert loader.trial is not None, "TransformerLens has loaded the model in another way"
    return LoadedModel(bridge, tokenizer, loader.trial, _keep_plain(loader.plain, bridge))


def _keep_plain(plain: Any | None, bridge: Any) -> Any | None:
    """Return the model alone if it needs hardly any memory besides the bridge, else None."""
    if plain is None:
        return None
    plain.requires_grad_(False)
    unshared = count_unshared(plain, bridge)
    if unshared > UNSHARED * sum(tensor.nbytes for tensor in plain.parameters()):
        log.info(
            "the activations are read with TransformerLens, which has copied %.1f GiB of weights", unshared / 2**30
        )
        return None
    return plain


def _forget_made_up_tokens(name: str, tokenizer: Any) -> None:
    """Leave out a BOS or EOS token that is named, but not in the vocabulary: transformers gives it an id of its own.

    The row of the embedding with that id, if there is one, is untrained.
    """
    from tokenizers import Tokenizer

    added = [role for role in ("bos", "eos") if (getattr(tokenizer, f"{role}_token_id") or 0) >= tokenizer.vocab_size]
    path = find_model_file(name, "tokenizer.json") if added else None
    if path is None:
        return
    vocabulary = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    settings = read_json(path.with_name("tokenizer_config.json"))
    listed = settings.get("added_tokens_decoder") if isinstance(settings, dict) else None
    ids = set(listed) if isinstance(listed, dict) else set()
    for role in added:
        token, number = getattr(tokenizer, f"{role}_token"), getattr(tokenizer, f"{role}_token_id")
        if token not in vocabulary and str(number) not in ids:
            setattr(tokenizer, f"{role}_token", None)
            log.warning("the vocabulary of %s lacks its %s token %r, so it has none", name, role.upper(), token)


class _CheckedLoader:
    """Stands in for transformers' class when TransformerLens loads a model: checks the weights, and tries the model."""

    def __init__(self, name: str, device: torch.device, keeps_plain: bool) -> None:
        self.name, self.device, self.keeps_plain = name, device, keeps_plain
        self.trial: Trial | None = None
        self.plain: Any | None = None

    def from_pretrained(self, folder: str, **options: Any) -> Any:
        """Load the model with the options of TransformerLens, on `device`.

        Raises: ConfigError if weights are missing or have another shape, or if the model does not predict tokens.
        """
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        is_decoder = type(options["config"]) in AutoModelForCausalLM._model_mapping
        library: Any = AutoModelForCausalLM if is_decoder else AutoModelForImageTextToText
        model, found = library.from_pretrained(
            folder, **options, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False
        )
        _require_weights(self.name, found)
        self.trial = _try_model(self.name, model.to(self.device).eval())
        if self.keeps_plain:
            self.plain = share_weights(model)
        return model


def _require_weights(name: str, found: dict[str, Any]) -> None:
    """Refuse a model some of whose weights would be random numbers, and warn of weights that it has no use for.

    found: transformers' loading info; it leaves out tied heads and buffers, which the files need not have
    """
    fix = "fetch the files again, or correct config.json: its class, its number of layers and its sizes"
    if missing := found.get("missing_keys"):
        problem = f"the files lack {len(missing)} of the weights that its class has: {_list_names(missing)}"
        raise ConfigError("model.name", name, problem, fix)
    if mismatched := found.get("mismatched_keys"):
        shapes = [f"{key} is {tuple(saved)} instead of {tuple(wanted)}" for key, saved, wanted in mismatched]
        raise ConfigError("model.name", name, f"weights have another shape than its class: {_list_names(shapes)}", fix)
    if errors := found.get("error_msgs"):
        raise ConfigError("model.name", name, f"weights cannot be read: {_list_names(map(str, errors))}", fix)
    if surplus := found.get("unexpected_keys"):
        log.warning("%s has weights that its class does not use: %s", name, _list_names(surplus))


def _list_names(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


@torch.no_grad()
def _try_model(name: str, model: Any) -> Trial:
    """Run a model of transformers on a few tokens.

    Raises: ConfigError if it gives no logits over a vocabulary, or if they depend on later tokens.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    ids = [(FIRST_TRIED + at) % rows for at in range(TRIED_TOKENS + 1)]
    tokens_PS = torch.tensor([ids[:-1], [*ids[:-2], ids[-1]]], device=next(model.parameters()).device)
    with _recorded_blocks(model) as blocks:
        found = model(tokens_PS)
    logits_PSV = getattr(found, "logits", None)
    fix = "choose a decoder language model"
    if not isinstance(logits_PSV, Tensor) or logits_PSV.ndim != 3 or logits_PSV.shape[:2] != tokens_PS.shape:
        raise ConfigError("model.name", name, f"{type(model).__name__} does not predict the next token", fix)
    if is_different(logits_PSV[1, :-1], logits_PSV[0, :-1]):
        problem = f"{type(model).__name__} sees the tokens that it predicts: its logits depend on later tokens"
        raise ConfigError("model.name", name, problem, fix)
    return Trial(tokens_PS, logits_PSV, next((found for found in blocks if found), {}), rows)


@contextmanager
def _recorded_blocks(model: Any) -> Iterator[list[dict[int, tuple[Tensor, Tensor]]]]:
    """Record what goes into and out of the blocks of a model of transformers that is run in this context.

    Yields a dict of layer -> (input, output) for every list of as many modules as the model has blocks, outer ones
    first. The dict of a list that does not run, such as the blocks for images, stays empty.
    """
    n_layers = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    lists = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == n_layers]
    records: list[dict[int, tuple[Tensor, Tensor]]] = [{} for _ in lists]
    handles = []
    for record, blocks in zip(records, lists, strict=True):
        for layer, block in enumerate(blocks):

            def keep(
                block: Any, args: Any, options: Any, out: Any, layer: int = layer, record: dict[int, Any] = record
            ) -> None:
                before = next((value for value in (*args, *options.values()) if isinstance(value, Tensor)), None)
                after = out[0] if isinstance(out, tuple) else out
                if isinstance(before, Tensor) and isinstance(after, Tensor) and before.shape == after.shape:
                    record[layer] = (before.clone(), after.clone())

            handles.append(block.register_forward_hook(keep, with_kwargs=True))
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def bridge_error(name: str, error: Exception) -> ConfigError:
    """Return the error to raise for a model that transformers runs, but TransformerLens does not."""
    problem = f"{describe_library()} cannot run it ({describe_failure(error)})"
    return ConfigError("model.name", name, problem, OTHER_MODEL)


def describe_failure(error: Exception) -> str:
    """Return the type and the beginning of the message of an exception, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def describe_library() -> str:
    """Return the name and version of TransformerLens, for messages."""
    return f"TransformerLens {version('transformer-lens')}"


def is_different(found: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors differ by more than the order of operations explains; False if `expected` overflows.

    Numbers that are not finite are left to a later check, which names their cause.
    """
    if not bool(expected.isfinite().all()):
        return False
    allowed = 1e-3 if expected.dtype == torch.float32 else 0.1  # of the largest value
    largest = float((found.float() - expected.float()).abs().max())
    return not largest <= allowed * max(float(expected.float().abs().max()), 1e-9)


def hash_model(bridge: Any) -> str:
    """Return a SHA-256 hash of the weights and configuration of a model in a TransformerBridge."""
    config = bridge.original_model.config.to_dict()
    for unrelated in ("_name_or_path", "transformers_version"):
        config.pop(unrelated, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(bridge.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
