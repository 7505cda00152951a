"""Task `steer`: changes latents or meta-latents at the hook, and shows what the language model predicts then."""

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.model_info import read_model_info
from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.config import Config
from sae_sweeps.config.studies import parse_changes
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.studies.steering import Edits, Steered, change_latents, change_meta_latents, steer
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.saved_saes import SavedSAE, locate_sae
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.study import Study, find_named_or_done
from sae_sweeps.tracking.run import Run

log = logging.getLogger(__name__)

COLUMNS = ["prompt", "word", "token", "before", "after", "change"]  # of a table of words: log-probabilities in nats


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return the study of the SAE that the command names, or of the only one in the sweep; and no reason to skip one.

    Raises: ConfigError if there is no such SAE, or several; if `steer.meta` is not its meta-SAE; if no prompt or no
    change is given; or if the SAE has no latent of a number that is given.
    """
    _require_given(command)
    saved, skipped = find_named_or_done(sweep, command)
    settings = asdict(command.steer)
    meta = None
    if (path := settings.pop("meta")) is not None:
        meta = _find_meta_sae(path, command)
        assert meta.declared is not None, "a meta-SAE is no point"
        saved = [one for one in saved if one.name == meta.declared.directions_of]
        if not saved:
            problem = f"has the directions of {meta.declared.directions_of}, which the command does not name"
            raise ConfigError("steer.meta", path, problem, "sae=outputs/SWEEP/POINT of that SAE, or its sweep as name=")
    if len(saved) > 1:
        problem = f"a latent has another meaning in each SAE, and sweep {sweep.name} has {len(saved)}"
        raise ConfigError("sae", "", problem, "name one: sae=outputs/SWEEP/POINT")
    if not saved:
        return [], skipped
    _require_latents(command, saved[0], meta)
    roles = {"sae": saved[0]} if meta is None else {"sae": saved[0], "meta": meta}
    return [Study.from_command("steer", sweep, command, saved[0].title, roles, settings)], ""


def run(sweep: Sweep, config: Config) -> list[str]:
    """Steer with the SAE that `config` selects, and print what changes. Returns one sentence per failure."""
    studies, skipped_reason = plan_studies(sweep, config)
    failures = run_studies(studies, _steer, skipped_reason)
    for study in studies:
        if (results := point_state.read_results(study.folder)) is not None:
            _print(results)
    return failures


def _find_meta_sae(path: str, command: Config) -> SavedSAE:
    """Return the meta-SAE in the folder of a study. Raises: ConfigError if there is none."""
    located, declared = locate_sae(path, "steer.meta")
    if declared.directions_of is None:
        problem = "is no meta-SAE: it was not trained on decoder directions"
        raise ConfigError("steer.meta", path, problem, "steer.meta=outputs/SWEEP/meta_sae/STUDY")
    config = replace(command, dict_size=declared.dict_size or command.dict_size, k=declared.k or command.k)
    name = located.folder.parent.name
    return SavedSAE(name, located.folder, config, None, "steer.meta", located.format, declared)


def _require_given(command: Config) -> None:
    """Check that there are prompts, and something to change. Raises: ConfigError if not."""
    given = command.steer
    if not given.prompts or not all(prompt.strip() for prompt in given.prompts):
        fix = "'steer.prompts=[The capital of France is]'"
        raise ConfigError("steer.prompts", given.prompts, "must be a list of texts, whose next token is predicted", fix)
    if not (given.clamp or given.add or given.remove):
        problem = "nothing is changed: neither steer.clamp, steer.add nor steer.remove is given"
        raise ConfigError("steer.remove", given.remove, problem, "'steer.remove=[12]' or 'steer.clamp=[12:4.0]'")


def _require_latents(command: Config, saved: SavedSAE, meta: SavedSAE | None) -> None:
    """Check that the SAE has the latents, and the meta-SAE the meta-latents, that the settings name by number.

    Raises: ConfigError if not, or if one is changed twice.
    """
    given, (one, noun) = command.steer, (meta or saved, "latents" if meta is None else "meta-latents")
    clamp, add = parse_changes(given.clamp), parse_changes(given.add)
    named = [("clamp", [*clamp], one, noun), ("add", [*add], one, noun), ("remove", given.remove, one, noun)]
    for setting, numbers, owner, what in (*named, ("of", given.of, saved, "latents")):
        size = owner.config.dict_size
        if too_large := [number for number in numbers if number >= size]:
            problem = f"{owner.name} has {size} {what}, from 0 to {size - 1}"
            raise ConfigError(f"steer.{setting}", too_large[0], problem, f"give numbers below {size}")
    Edits.build(clamp, add, given.remove)


def _steer(study: Study, display: PointProgress) -> None:
    """Predict the token after each prompt with and without the changes, and write results.json."""
    source, settings = study.load_source(), study.settings
    sae = study.load_sae("sae", source)
    clamp, add = parse_changes(settings["clamp"]), parse_changes(settings["add"])
    edits = Edits.build(clamp, add, settings["remove"]).to(source.device)
    change: Callable[[Tensor], tuple[Tensor, Tensor]] = partial(change_latents, sae, edits=edits)
    kind = "latent"
    if "meta" in study.saved:
        meta, kind = study.saved["meta"].load(source.device), "meta-latent"
        change = partial(change_meta_latents, sae, meta, edits=edits, of=settings["of"])
    words = {word: find_first_token(source.model, word) for word in settings["words"]}
    display.show_stage("predicting")
    found = []
    for prompt in settings["prompts"]:
        tokens_S, is_changed_S = _read_prompt(source, study.config, prompt, settings["positions"])
        found.append(steer(source.model, tokens_S, prompt, words, change, is_changed_S, settings["top"]))
    most = {name: max(one.most_J[at] for one in found) for at, name in enumerate(edits.index_J.tolist())}
    for name in settings["remove"]:
        if most[name] == 0:
            log.warning("%s: %s %d is active in no prompt, so removing it changes nothing", study.name, kind, name)
    metrics = {"prompts": len(found), "kl_mean": sum(one.kl for one in found) / len(found)}
    study.write_results(metrics, prompts=[asdict(one) for one in found], most_active=most)
    study.track("step", partial(_log_run, found=found), metrics)


def _read_prompt(source: ActivationSource, config: Config, prompt: str, positions: str) -> tuple[Tensor, Tensor]:
    """Return the token ids of a prompt (S,), and at which positions activations are changed, bool (S,).

    Raises: ConfigError if the prompt has more tokens than the model takes.
    """
    model = source.model
    (ids,) = model.encode([prompt])
    first = [model.bos] if config.dataset.prepend_bos and model.bos is not None else []
    tokens_S = torch.tensor([*first, *ids])
    context = read_model_info(config.model.name).context
    if context is not None and len(tokens_S) > context:
        problem = f"a prompt has {len(tokens_S)} tokens, and the model takes {context}"
        raise ConfigError("steer.prompts", prompt[:40], problem, "shorten the prompt")
    is_changed_S = source.positions.find(tokens_S[None])[0]
    if positions == "last":
        is_changed_S[:-1] = False
    return tokens_S, is_changed_S.to(source.device)


def find_first_token(model: LanguageModel, word: str) -> int:
    """Return the id of the first token of a word that follows another one after a blank.

    Raises: ConfigError if the tokenizer makes no token of it.
    """
    whole, before = model.encode([f"x {word.strip()}", "x"])
    after = whole[len(before) :] if whole[: len(before)] == before else model.encode([word])[0]
    if not after:
        raise ConfigError("steer.words", word, "has no token", "leave it out")
    return after[0]


def _print(results: dict[str, Any]) -> None:
    """Print tables of what steering changed: of the words that were asked for, and of the tokens that changed most."""
    rows = list_words(results)
    if rows:
        table = Table(title="log-probability of the next word, in nats")
        for title in COLUMNS:
            table.add_column(title, justify="right" if title in COLUMNS[3:] else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    table = Table(title="next tokens whose probability changes most, before -> after")
    for title in ("prompt", "rises", "falls"):
        table.add_column(title)
    for prompt in results["prompts"]:
        changes = ["\n".join(map(format_change, prompt[side])) for side in ("raised", "lowered")]
        table.add_row(prompt["prompt"], *changes, end_section=True)
    console.print(table)


def list_words(results: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table of words, with the titles COLUMNS: log-probabilities in nats."""
    rows = []
    for one in results["prompts"]:
        for word, found in one["words"].items():
            before, after = found["before"], found["after"]
            shown = [f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"]
            rows.append([one["prompt"], word, repr(found["token"]), *shown])
    return rows


def format_change(change: dict[str, Any]) -> str:
    """Return a token with its probability before and after, in per cent."""
    before, after = (torch.tensor(change[name]).exp().item() for name in ("before", "after"))
    return f"{change['token']!r} {before:.1%} -> {after:.1%}"


def _log_run(run: Run, found: list[Steered]) -> None:
    """Log the table of words and the tokens that change most to a W&B run."""
    results = {"prompts": [asdict(one) for one in found]}
    run.table("words", COLUMNS, list_words(results))
    rows = [
        [one.prompt, side, change.token, change.before, change.after]
        for one in found
        for side, changes in (("raised", one.raised), ("lowered", one.lowered))
        for change in changes
    ]
    run.table("changes", ["prompt", "side", "token", "before", "after"], rows)
