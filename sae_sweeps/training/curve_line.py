"""What a line of the training curve says of a trainer after a step."""

from sae_sweeps.saes import PenalizedSAE, Step
from sae_sweeps.training.trainer import Trainer


def curve_line(trainer: Trainer, step: Step) -> dict[str, float]:
    """Return the values of one line of the training curve by name, from the latest step and the trainer's counters.

    loss, mse, aux_loss and l0 are fields of `step`, measured on one batch; dead_fraction is the share of latents that
    `Trainer.dead_F` marks.
    """
    line = {
        "step": trainer.steps_done,
        "tokens": trainer.tokens_done,
        "loss": step.loss.item(),
        "mse": step.mse.item(),
        "aux_loss": step.aux_loss.item(),
        "l0": step.l0.item(),
        "dead_fraction": trainer.dead_F.float().mean().item(),
        "lr": trainer.lr(trainer.steps_done),
    }
    threshold = trainer.sae.inference_threshold
    if threshold is not None:
        line["threshold_mean"] = threshold.mean().item()
    if isinstance(trainer.sae, PenalizedSAE):
        line["sparsity_coefficient"] = float(trainer.sae.sparsity_coefficient)
    return line
