"""What the files of an SAE declare of its training, compared with the model, hook and text of a command."""

from typing import TYPE_CHECKING

from sae_sweeps.activations.facts import read_facts
from sae_sweeps.activations.hooks import WIDE_HOOKS, is_same_activation
from sae_sweeps.activations.model_info import is_same_model
from sae_sweeps.config import Config
from sae_sweeps.config.commands import format_setting
from sae_sweeps.config.synthetic import SYNTHETIC
from sae_sweeps.runtime.errors import ConfigError

if TYPE_CHECKING:  # importing it takes torch, which takes a second
    from sae_sweeps.formats.description import Description


def require_match(setting: str, path: str, declared: "Description", command: Config) -> None:
    """Check that the SAE at `path` was trained on the command's model, hook and activation width.

    Raises: ConfigError if one of them differs, or if the SAE is a meta-SAE (trained on decoder directions).
    """
    model = command.model
    if declared.directions_of is not None:
        problem = "is a meta-SAE, trained on decoder directions instead of activations"
        raise ConfigError(setting, path, problem, "name an SAE that was trained on activations")
    if declared.model is not None and not is_same_model(declared.model, [model.name, *model.aliases]):
        problem = f"was trained on {declared.model}, but the command uses {model.name}"
        alias = format_setting("model.aliases", [declared.model])
        fix = f"set model=... to its model, or add {alias} if both are the same model"
        raise ConfigError(setting, path, problem, fix)
    if declared.hook not in (None, SYNTHETIC) and not str(declared.hook).endswith(WIDE_HOOKS):
        problem = f"was trained at {declared.hook}, which is not supported"
        raise ConfigError(setting, path, problem, f"name an SAE of one of these hooks: {', '.join(WIDE_HOOKS)}")
    if declared.hook is not None and not is_same_activation(declared.hook, model.hook):
        problem = f"was trained at {declared.hook}, but the command uses {model.hook}"
        raise ConfigError(setting, path, problem, f"model.hook={declared.hook}")
    if declared.d_in is not None and (width := _width(command)) not in (None, declared.d_in):
        problem = f"takes activations of width {declared.d_in}, but the activations of {model.name} have width {width}"
        raise ConfigError(setting, path, problem, "set model=... to the model that it was trained on")


def _width(command: Config) -> int | None:
    """Return the width of the command's activations; None if the model cannot be read."""
    try:
        return read_facts(command).d_model
    except ConfigError:
        return None  # preflight reports the error of the model


def list_remarks(declared: "Description", config: Config) -> list[str]:
    """Return sentences on what an SAE's files leave open or declare otherwise than the command; empty if nothing.

    config: configuration with which activations of the SAE are computed
    """
    model, dataset, remarks = config.model, config.dataset, []
    missing = [name for name, value in (("model", declared.model), ("hook", declared.hook)) if value is None]
    if missing:
        remarks.append(
            f"its files name no {' and no '.join(missing)}; the command's are assumed to be the SAE's: "
            f"model.name={model.name}, model.hook={model.hook}"
        )
    if declared.is_centered:
        remarks.append(
            "it was trained on a centred residual stream (center_writing_weights); the mean over the width is "
            "subtracted from each activation, and added to the reconstruction"
        )
    if declared.prepend_bos not in (None, dataset.prepend_bos):
        remarks.append(f"it was trained with prepend_bos={declared.prepend_bos}, unlike dataset.prepend_bos here")
    if declared.context_size not in (None, dataset.seq_len):
        remarks.append(
            f"it was trained on sequences of {declared.context_size} tokens, but dataset.seq_len={dataset.seq_len}"
        )
    return remarks
