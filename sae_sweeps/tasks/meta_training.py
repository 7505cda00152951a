"""Training of a meta-SAE and of a control on shuffled directions. Both resume from checkpoints.

<study>/sae/                      the meta-SAE, in SAELens' format
<study>/checkpoint/               the newest training states of the meta-SAE, to resume from
<study>/metrics.jsonl             the training curve of the meta-SAE
<study>/control/                  checkpoint/ and metrics.jsonl of the control, which is not saved as an SAE
<study>/decomposed.json           the numbers of the latents whose directions are decomposed
"""

# A decomposed latents, F latents of an SAE, or of all SAEs of a study together, D model width

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweeps.config.studies import MetaConfig
from sae_sweeps.evaluation.ratios import complement, divide
from sae_sweeps.formats import saelens
from sae_sweeps.formats.layout import DIRECTIONS_OF
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.console import pluralize
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.held import make_folder
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.runtime.records import read_record, write_record
from sae_sweeps.saes import BatchTopKSAE
from sae_sweeps.studies.meta_sae import MetaSAE, build_trainer, set_threshold, shuffle_directions
from sae_sweeps.tasks.study import Study
from sae_sweeps.training import checkpoints
from sae_sweeps.training.curve import CurveFile
from sae_sweeps.training.trainer import train

log = logging.getLogger(__name__)

LOG_EVERY = 50  # steps between two lines of the training curve
CONTROL, CHECKPOINT, CURVE = "control", "checkpoint", "metrics.jsonl"
DECOMPOSED = "decomposed.json"


def choose_latents(study: Study, is_active_F: Tensor, names: Sequence[str]) -> Tensor:
    """Return the numbers of the A latents to decompose: all that are active in the text, or with include_dead all.

    is_active_F (F,): which latents are active in the text; names: of their SAE or SAEs

    The first run saves the list to decomposed.json, and later runs read it: another device may find other latents
    active, and a resumed training needs the same directions. Raises: ConfigError if no latent is active.
    """
    file, count = study.folder / DECOMPOSED, len(is_active_F)
    latents = (read_record(file, {"latents": [int]}, is_sealed=True) or {}).get("latents")
    if latents is not None and latents != sorted({*latents} & {*range(count)}):
        latents = None
    if latents is None:
        include_dead = study.settings["include_dead"]
        latents = list(range(count)) if include_dead else is_active_F.nonzero().squeeze(1).tolist()
        write_record(file, {"latents": latents})
    if not latents:
        tokens, owner = study.settings["latents"]["tokens"], ", ".join(names)
        problem = f"no latent of {owner} is active on any of these tokens, so none can be decomposed"
        raise ConfigError("latents.tokens", tokens, problem, "set more tokens, or set meta.include_dead=true")
    if left_out := count - len(latents):
        message = "%s: the meta-SAE leaves out %s, never active in the text (set meta.include_dead=true to include)"
        log.info(message, study.name, pluralize(left_out, "latent"))
    return torch.tensor(latents, device=is_active_F.device)


def train_with_control(
    study: Study, W_dec_FD: Tensor, latents_A: Tensor, names: Sequence[str], display: PointProgress
) -> tuple[MetaSAE, MetaSAE]:
    """Train a meta-SAE, save it, and train a control. Returns the meta-SAE and the control.

    The control is a meta-SAE with the same settings on shuffled directions.
    W_dec_FD: decoder directions, of any norm; latents_A: numbers of those that are decomposed
    names: of the SAE or SAEs that have the directions, for the files of the meta-SAE

    Raises: ConfigError if there are more meta-latents than directions. Stopped on a stop signal, after saving the
    training state.
    """
    directions_AD = torch.nn.functional.normalize(W_dec_FD[latents_A], dim=1)
    values = {name: value for name, value in study.settings.items() if name != "latents"}
    settings = MetaConfig(**values | {"dict_size": _choose_dict_size(directions_AD, study.settings)})
    meta = MetaSAE(_train(study, study.folder, directions_AD, settings, display), latents_A, directions_AD, settings)
    metadata = {
        DIRECTIONS_OF: ", ".join(names),
        "sae_sweeps": {"k": meta.sae.k, "seed": settings.seed},
    }
    saelens.write(study.folder / "sae", meta.sae.for_inference(), metadata)
    display.show_stage("training the control on shuffled directions")
    shuffled_AD = shuffle_directions(directions_AD, settings.seed)
    control = _train(study, study.folder / CONTROL, shuffled_AD, settings, display)
    return meta, MetaSAE(control, latents_A, shuffled_AD, settings)


def _choose_dict_size(directions_AD: Tensor, settings: dict[str, Any]) -> int:
    """Return the number of meta-latents: the setting dict_size, or by default a quarter of the directions.

    Raises: ConfigError if dict_size is not between 1 and the number of directions.
    """
    quarter = max(1, len(directions_AD) // 4)
    size = quarter if settings["dict_size"] is None else settings["dict_size"]
    if not 0 < size <= len(directions_AD):
        count = len(directions_AD)
        problem = f"the number of meta-latents must be between 1 and {count}, the number of decoder directions"
        raise ConfigError("meta.dict_size", size, problem, f"set meta.dict_size={quarter}")
    return size


def _train(
    study: Study, folder: Path, directions_AD: Tensor, settings: MetaConfig, display: PointProgress
) -> BatchTopKSAE:
    """Train a meta-SAE and return it. Training resumes from the newest checkpoint in `folder`, that of the study or
    a folder in it.

    Raises: Stopped on a stop signal, after saving the training state.
    """
    trainer, stream = build_trainer(directions_AD, settings)
    steps, tokens = trainer.config.steps, trainer.config.tokens
    states, owner = folder / CHECKPOINT, str(folder.relative_to(study.folder.parent))
    if (state := checkpoints.load_newest(states, owner, trainer.check_state)) is not None:
        trainer.load_state(state)
    if 0 < trainer.steps_done < steps:
        log.info("%s: resuming at step %d of %d", folder, trainer.steps_done, steps)
    make_folder(folder)
    curve = CurveFile(folder / CURVE, trainer.steps_done, owner)
    variance = (directions_AD - directions_AD.mean(0)).square().mean().item()
    for _, chunk_steps in train([trainer], stream):
        for step in chunk_steps:
            done = trainer.steps_done
            display.show_step(trainer.tokens_done, tokens, step.loss, step.l0, "directions")
            if done % LOG_EVERY == 0 or trainer.finished:
                explained = complement(divide(step.mse.item(), variance))
                curve.append({"step": done, "explained_variance": explained, "l0": step.l0.item()})
            if done % settings.checkpoint_every == 0 or trainer.finished:
                checkpoints.save(states, done, trainer.state(), owner)
            try:
                signals.raise_if_stopped()
            except signals.Stopped:
                checkpoints.save(states, done, trainer.state(), owner)
                raise
    assert isinstance(trainer.sae, BatchTopKSAE), "build_trainer builds a BatchTopKSAE"
    set_threshold(trainer.sae, directions_AD)
    return trainer.sae
