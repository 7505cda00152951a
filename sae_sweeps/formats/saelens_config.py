"""Reads cfg.json of SAELens, of version 6 and older: what an SAE is, and which activations it is of.

Every field that SAELens writes is here: fields that change what an SAE computes or is of are honoured or refused, the
others are known to have no effect.
"""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweeps.formats.fields import Fields
from sae_sweeps.formats.files import SAEFileError, read_config, show
from sae_sweeps.formats.layout import CONFIG, DIRECTIONS_OF

# keys of cfg.json in older versions, and in version 6
RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
RESCALING = ("topk", "batchtopk", "matryoshka_batchtopk")  # architectures with rescale_acts_by_decoder_norm
# scales activations by a factor that SAELens multiplies into the weights when saving, and ignores when loading
TRAINING_ONLY = "expected_average_only_in"
# `InferenceSAE.normalization`, by normalize_activations in cfg.json
NORMALIZATIONS = {
    "none": "none",
    TRAINING_ONLY: "none",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm_rescale",
}
TRANSCODER = "a transcoder, which reconstructs other activations than it encodes"
HEADS = {"hook_head_index": "one attention head", "hook_head_index_out": TRANSCODER}  # 0 is a head as well
UNSUPPORTED = {  # what makes the SAE one of other activations, and what each means
    "reshape_activations": "activations of attention heads",
    "hook_name_out": TRANSCODER,
    "hf_hook_name_out": TRANSCODER,
    "d_out": TRANSCODER,
    "seqpos_slice": "only some positions of a sequence",
    "input_transform": "activations that were transformed first",
}
KNOWN = {  # settings of SAEs in version 6, most of them of training only
    *("architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations", "metadata"),
    *("reshape_activations", "k", "rescale_acts_by_decoder_norm", "use_sparse_activations", "activation_fn"),
    *("activation_fn_kwargs", "decoder_init_norm", "l1_coefficient", "lp_norm", "l1_warm_up_steps"),
    *("aux_loss_coefficient", "topk_threshold_lr", "matryoshka_widths", "use_matryoshka_aux_loss"),
    *("jumprelu_init_threshold", "jumprelu_bandwidth", "jumprelu_sparsity_loss_mode", "jumprelu_tanh_scale"),
    *("jumprelu_ste_to_input", "l0_coefficient", "l0_warm_up_steps", "pre_act_loss_coefficient", "target_l0"),
    "finetuning_scaling_factor",  # the weights have the factors, which are checked there
}
# entries of the metadata that say what the SAE is of; some files have them beside the metadata instead
ABOUT_MODEL = {
    *("model_name", "model_class_name", "model_from_pretrained_kwargs", "hook_name", "hook_layer", "hf_hook_name"),
    *("hook_head_index", "hook_name_out", "hf_hook_name_out", "hook_head_index_out", "seqpos_slice", "prepend_bos"),
    *("exclude_special_tokens", "context_size", "dataset_path", "dataset_trust_remote_code", "neuronpedia_id"),
    *("sae_lens_version", "sae_lens_training_version"),
}
# settings of SAEs and of training in older versions, and entries of the metadata, whose names speak of a normalisation
WITHOUT_EFFECT = {"normalize_sae_decoder", "normalize_decoder", "mse_loss_normalization"}

ORIGIN = "sae_sweeps"  # entry of the metadata in files of this project
CENTERING = "center_writing_weights"
# keyword arguments with which the model was loaded, and which change no activation at the hooks that can be used here
HARMLESS_ARGUMENTS = {
    *(CENTERING, "fold_ln", "center_unembed", "fold_value_biases", "refactor_factored_attn_matrices"),
    *("device", "n_devices", "move_to_device", "device_map", "dtype", "torch_dtype", "low_cpu_mem_usage", "use_cache"),
    *("default_prepend_bos", "default_padding_side", "first_n_layers", "trust_remote_code", "cache_dir", "token"),
    *("local_files_only", "attn_implementation", "force_download", "use_safetensors", "weights_only"),
}
# models with RMSNorm, in which TransformerLens centres no weights
RMS_NORM = re.compile(r"gemma|llama|mi[sx]tral|qwen|deepseek|phi-?[34]|olmo-?[23]|smollm|mamba", re.IGNORECASE)


@dataclass(frozen=True)
class SAELensConfig:
    """The settings in cfg.json, checked.

    k: None if the file names none
    normalization: one of `saes.base.NORMALIZATIONS`
    scale_is_lost: whether training scaled activations by a factor that the files do not name
    """

    architecture: str
    d_in: int
    d_sae: int
    k: int | None
    centers_input: bool
    rescales: bool
    normalization: str
    scale_is_lost: bool
    metadata: Fields

    @property
    def origin(self) -> Fields:
        """Return the entry that this project adds to the metadata; empty for the SAE of another library."""
        return self.metadata.section(ORIGIN)

    @property
    def directions_of(self) -> str | None:
        """Return, for a meta-SAE, the SAE whose decoder directions it reconstructs."""
        return self.metadata.text(DIRECTIONS_OF)


def read_saelens_config(path: Path) -> SAELensConfig:
    """Return the settings in cfg.json in the folder `path`.

    Raises: SAEFileError if cfg.json lacks the architecture or a size, if a value is of another type, or if a setting
    makes the SAE something that is not supported.
    """
    content = read_config(path / CONFIG)
    given = {RENAMED.get(name, name): value for name, value in content.items()}
    is_older = given.get("metadata") is None  # before version 6, all settings are on one level
    fields = Fields(CONFIG, _convert_older(given) if is_older else given)
    if is_older:
        metadata = Fields(CONFIG, {**given, ORIGIN: None})
    else:
        beside = {name: value for name, value in given.items() if name in ABOUT_MODEL}
        inside = {name: value for name, value in fields.section("metadata").values.items() if value is not None}
        metadata = Fields(CONFIG, beside | inside)
    architecture, d_in, d_sae = fields.text("architecture"), fields.whole("d_in"), fields.whole("d_sae")
    if missing := [name for name in ("architecture", "d_in", "d_sae") if name not in fields]:
        raise SAEFileError(f"{CONFIG} has no {', '.join(missing)}")
    assert architecture is not None and d_in is not None and d_sae is not None  # noqa: PT018  for the type checker
    for level in (fields, metadata):
        level.refuse({name: reason for name, reason in HEADS.items() if name in level})
        level.refuse({name: reason for name, reason in UNSUPPORTED.items() if level.is_set(name)})
        level.refuse_unknown(KNOWN | ABOUT_MODEL | WITHOUT_EFFECT, everything=level is fields and not is_older)
    normalization = fields.text("normalize_activations") or "none"
    if normalization not in NORMALIZATIONS:
        raise SAEFileError(f"{CONFIG} has normalize_activations={normalization!r}, which is not supported")
    return SAELensConfig(
        architecture,
        d_in,
        d_sae,
        fields.whole("k"),
        centers_input=fields.flag("apply_b_dec_to_input", default=True),
        rescales=fields.flag("rescale_acts_by_decoder_norm") and architecture in RESCALING,
        normalization=_add_centering(NORMALIZATIONS[normalization], metadata, is_older and "hook_point" in content),
        scale_is_lost=normalization == TRAINING_ONLY,
        metadata=metadata,
    )


def _convert_older(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an older cfg.json as version 6 has them. Raises: SAEFileError for another activation."""
    config = dict(given)
    config.pop("metadata", None)
    config.setdefault("architecture", "standard")
    fields = Fields(CONFIG, config)
    activation = fields.text("activation_fn") or "relu"
    if activation == "topk":
        config |= {"architecture": "topk", "k": fields.section("activation_fn_kwargs").values.get("k")}
    elif activation != "relu":
        raise SAEFileError(f"{CONFIG} has the activation function {activation!r}, which is neither relu nor topk")
    if isinstance(config.get("normalize_activations"), bool):
        config["normalize_activations"] = TRAINING_ONLY if config["normalize_activations"] else "none"
    return config


def _add_centering(normalization: str, metadata: Fields, predates_arguments: bool) -> str:
    """Return the normalisation, with the centring of the model on whose activations the SAE was trained.

    TransformerLens centres a model by subtracting, from all weights that write to the residual stream, their mean over
    the width. In a model with LayerNorm this subtracts from each activation at a hook of width d_model the mean of its
    entries, and changes nothing else.

    predates_arguments: whether the file is from a version that had no `model_from_pretrained_kwargs` yet, and always
        centred the model, as for the GPT-2 feature-splitting SAEs
    Raises: SAEFileError if the model was loaded with arguments that may change its activations.
    """
    arguments = metadata.section("model_from_pretrained_kwargs")
    for name in arguments:
        if name not in HARMLESS_ARGUMENTS and arguments.is_set(name):
            value = reprlib.repr(arguments.values[name])
            raise SAEFileError(
                f"model_from_pretrained_kwargs in {CONFIG} sets {show(name)}={value}, with which the model may "
                "compute other activations",
                f"name a model folder with the same weights by model.name=, and remove {show(name)} from {CONFIG}",
            )
    default = predates_arguments and "model_from_pretrained_kwargs" not in metadata
    centers = arguments.flag(CENTERING, default) and not RMS_NORM.search(metadata.text("model_name") or "")
    if not centers or normalization == "layer_norm":  # which subtracts the mean itself
        return normalization
    if normalization != "none":
        raise SAEFileError(
            f"{CONFIG} has both {CENTERING} and normalize_activations={normalization!r}, "
            "a combination that is not supported"
        )
    return "center"
