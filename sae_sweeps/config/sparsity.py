"""Decides whether a sparsity coefficient or a target L0 sets the sparsity of an SAE with a penalty."""

from typing import Any

from omegaconf import DictConfig

from sae_sweeps.config.saes import LISTED_SETTINGS, JumpReLUConfig, PenaltyConfig
from sae_sweeps.config.schema import Config
from sae_sweeps.config.synthetic import is_synthetic


def apply_precedence(
    coefficient: float | None, target_l0: float | None, listed: float | None, k: int
) -> dict[str, float]:
    """Return a dictionary with the one setting that decides the sparsity: `target_l0` or `sparsity_coefficient`.

    The value is the first of these that is not None: `target_l0`, `coefficient`, `listed` (the coefficient for this k
    in model.sparsity_coefficients). If all are None, it is a target L0 of k.
    """
    if target_l0 is not None:
        return {"target_l0": target_l0}
    coefficient = listed if coefficient is None else coefficient
    return {"target_l0": float(k)} if coefficient is None else {"sparsity_coefficient": coefficient}


def resolve_sparsity(config: Config) -> dict[str, float]:
    """Return a dictionary with the one setting that decides an SAE's sparsity: `target_l0` or `sparsity_coefficient`.

    The SAE must have a penalty, and `find_problems` must have passed the configuration.
    """
    sae = config.sae
    assert isinstance(sae, PenaltyConfig), "only SAEs with a penalty have these settings"
    return apply_precedence(sae.sparsity_coefficient, sae.target_l0, _find_listed(config), config.k)


def find_listed_setting(cfg: DictConfig, name: str) -> Any:
    """Return a setting of LISTED_SETTINGS as the coefficient in use was found with, for conf/sae/jumprelu.yaml.

    It is the default of JumpReLU unless the point has a language model and a coefficient that its
    model.sparsity_coefficients lists. An `initial_threshold` that the command gives counts as a given start, so that
    `absolute_threshold` is None.

    cfg: a composed configuration whose architecture is JumpReLU
    """
    default, listed = getattr(JumpReLUConfig, name), cfg.model.sparsity_coefficients
    is_given = cfg.sae.sparsity_coefficient is not None or cfg.sae.target_l0 is not None or is_synthetic(cfg)
    if is_given or cfg.k not in listed["values"] or listed[name] is None:
        return default
    if name == "absolute_threshold" and cfg.sae.initial_threshold != JumpReLUConfig.initial_threshold:
        return default
    return listed[name]


def explain_sparsity(config: Config) -> str:
    """Return a log message with the setting that decides the sparsity, the value, and the source of the value.

    For JumpReLU, also with the other settings that the effect of a coefficient depends on.
    """
    sae = config.sae
    ((name, value),) = resolve_sparsity(config).items()
    assert isinstance(sae, PenaltyConfig), "checked by resolve_sparsity"
    if getattr(sae, name) is not None:
        source = "as given in the settings"
    elif name == "target_l0":
        source = f"which is k={config.k}, because no sae.sparsity_coefficient is given"
        source += " or listed by the model's configuration" if isinstance(sae, JumpReLUConfig) else ""
    else:
        source = f"which the model's configuration lists for k={config.k}"
    if isinstance(sae, JumpReLUConfig):
        source += f", with {_format_settings(vars(sae))}"
    if uses_listed(config) and (others := _describe_others(config)):
        source += f"; it was found {others}, so check the L0 of the trained SAE"
    return f"sae.{name}={value:g}, {source}"


def uses_listed(config: Config) -> bool:
    """Return whether the sparsity of a point is set by a coefficient that model.sparsity_coefficients lists."""
    sae = config.sae
    if not isinstance(sae, JumpReLUConfig) or _find_listed(config) is None:
        return False
    return sae.sparsity_coefficient is None and sae.target_l0 is None


def _describe_others(config: Config) -> str:
    """Return for what and with which settings the listed coefficients were found, as far as the point has others."""
    model, listed = config.model, config.model.sparsity_coefficients
    is_elsewhere = (listed.name, listed.hook) != (model.name, model.hook)
    values = {name: vars(listed)[name] for name in LISTED_SETTINGS if vars(listed)[name] is not None}
    found = {name: values.get(name, getattr(JumpReLUConfig, name)) for name in LISTED_SETTINGS}
    others = {name: value for name, value in found.items() if value != getattr(config.sae, name)}
    parts = [f"for {listed.name} at {listed.hook}"] * is_elsewhere
    return " ".join([*parts, *([f"with {_format_settings(others)}"] if _format_settings(others) else [])])


def _format_settings(settings: dict[str, Any]) -> str:
    """Return the settings of LISTED_SETTINGS in a dictionary as text, without a start that is not given."""
    shown = {name: settings[name] for name in LISTED_SETTINGS if settings.get(name) is not None}
    return ", ".join(
        f"sae.{name}={value:g}" if isinstance(value, float) else f"sae.{name}={value}" for name, value in shown.items()
    )


def _find_listed(config: Config) -> float | None:
    """Return the coefficient for this k in model.sparsity_coefficients; None if there is none, or not JumpReLU."""
    return config.model.sparsity_coefficients.values.get(config.k) if isinstance(config.sae, JumpReLUConfig) else None
