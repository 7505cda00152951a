"""Which of two settings decides how sparse an SAE gets."""

from sae_sweeps.config.saes import JumpReLUConfig, PenaltyConfig
from sae_sweeps.config.schema import Config


def pick_sparsity(coefficient: float | None, target_l0: float | None, listed: float | None, k: int) -> dict[str, float]:
    """Which of two settings decides how sparse it gets, and its value: what is given, then what is listed."""
    if target_l0 is not None:
        return {"target_l0": target_l0}
    coefficient = listed if coefficient is None else coefficient
    return {"target_l0": float(k)} if coefficient is None else {"sparsity_coefficient": coefficient}


def choose_sparsity(config: Config) -> tuple[dict[str, float], str]:
    """What an SAE with a penalty is to be given for a point that `problems` has passed, one of `sparsity_coefficient`
    and `target_l0`, and a sentence saying where it is from."""
    sae, listed = config.sae, config.model.sparsity_coefficients
    assert isinstance(sae, PenaltyConfig), "the others have neither"
    of_k = listed.values.get(config.k) if isinstance(sae, JumpReLUConfig) else None
    chosen = pick_sparsity(sae.sparsity_coefficient, sae.target_l0, of_k, config.k)
    ((name, value),) = chosen.items()
    source = f"sae.{name}={value:g}, "
    if name == "target_l0":
        chosen_for = f"for k={config.k}: no sae.sparsity_coefficient is given"
        chosen_for += " or listed by the model's configuration" if isinstance(sae, JumpReLUConfig) else ""
        source += chosen_for if sae.target_l0 is None else "as given"
    elif sae.sparsity_coefficient is not None:
        source += "as given"
    else:
        source += f"listed for k={config.k} by the model's configuration"
        if (listed.name, listed.hook) != (config.model.name, config.model.hook):
            source += f"; it was found for {listed.name} at {listed.hook}, so check the l0 that it gives here"
    return chosen, source
