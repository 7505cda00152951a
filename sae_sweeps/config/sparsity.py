"""Which setting decides the sparsity of SAEs with a penalty: a coefficient, or a target L0."""

from sae_sweeps.config.saes import JumpReLUConfig, PenaltyConfig
from sae_sweeps.config.schema import Config


def apply_precedence(
    coefficient: float | None, target_l0: float | None, listed: float | None, k: int
) -> dict[str, float]:
    """Return the one setting that decides the sparsity, and its value.

    The first of these that is not None: `target_l0`, `coefficient`, `listed` (the coefficient that the model lists for
    k). If all are None: a target L0 of k.
    """
    if target_l0 is not None:
        return {"target_l0": target_l0}
    coefficient = listed if coefficient is None else coefficient
    return {"target_l0": float(k)} if coefficient is None else {"sparsity_coefficient": coefficient}


def resolve_sparsity(config: Config) -> dict[str, float]:
    """Return the one setting that decides the sparsity of a point's SAE, `sparsity_coefficient` or `target_l0`.

    The SAE must have a penalty, and `find_problems` must have passed the configuration.
    """
    sae = config.sae
    assert isinstance(sae, PenaltyConfig), "other SAEs have neither setting"
    return apply_precedence(sae.sparsity_coefficient, sae.target_l0, _find_listed(config), config.k)


def explain_sparsity(config: Config) -> str:
    """Return a sentence that names the setting of `resolve_sparsity`, its value, and where the value comes from."""
    sae, listed = config.sae, config.model.sparsity_coefficients
    ((name, value),) = resolve_sparsity(config).items()
    assert isinstance(sae, PenaltyConfig), "checked by resolve_sparsity"
    if getattr(sae, name) is not None:
        source = "as given"
    elif name == "target_l0":
        source = f"for k={config.k}: no sae.sparsity_coefficient is given"
        source += " or listed by the model's configuration" if isinstance(sae, JumpReLUConfig) else ""
    else:
        source = f"listed for k={config.k} by the model's configuration"
        if (listed.name, listed.hook) != (config.model.name, config.model.hook):
            source += f"; it was found for {listed.name} at {listed.hook}, so check the L0 that it gives here"
    return f"sae.{name}={value:g}, {source}"


def _find_listed(config: Config) -> float | None:
    """Return the coefficient that the model lists for k; None if it lists none. Lists are for JumpReLU only."""
    return config.model.sparsity_coefficients.values.get(config.k) if isinstance(config.sae, JumpReLUConfig) else None
