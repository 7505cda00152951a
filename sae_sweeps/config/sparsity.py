"""Decides whether a sparsity coefficient or a target L0 sets the sparsity of an SAE with a penalty."""

from sae_sweeps.config.saes import JumpReLUConfig, PenaltyConfig
from sae_sweeps.config.schema import Config


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


def explain_sparsity(config: Config) -> str:
    """Return a log message with the setting that decides the sparsity, the value, and the source of the value."""
    sae, listed = config.sae, config.model.sparsity_coefficients
    ((name, value),) = resolve_sparsity(config).items()
    assert isinstance(sae, PenaltyConfig), "checked by resolve_sparsity"
    if getattr(sae, name) is not None:
        source = "as given in the settings"
    elif name == "target_l0":
        source = f"which is k={config.k}, because no sae.sparsity_coefficient is given"
        source += " or listed by the model's configuration" if isinstance(sae, JumpReLUConfig) else ""
    else:
        source = f"which the model's configuration lists for k={config.k}"
        if (listed.name, listed.hook) != (config.model.name, config.model.hook):
            source += f"; it was found for {listed.name} at {listed.hook}, so check the L0 of the trained SAE"
    return f"sae.{name}={value:g}, {source}"


def _find_listed(config: Config) -> float | None:
    """Return the coefficient for this k in model.sparsity_coefficients; None if there is none, or not JumpReLU."""
    return config.model.sparsity_coefficients.values.get(config.k) if isinstance(config.sae, JumpReLUConfig) else None
