"""A study of trained SAEs: which SAEs, with which settings, in which folder; and the choice of SAEs for a command."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sae_sweeps.activations.hooks import is_same_activation
from sae_sweeps.activations.model_info import is_same_model
from sae_sweeps.activations.source import ActivationSource, Source, load_source
from sae_sweeps.config import Config, DatasetConfig, ModelConfig
from sae_sweeps.config.identity import select_shown_settings, select_stream_settings
from sae_sweeps.config.schema import get_setting
from sae_sweeps.config.tasks import WITHOUT_MODEL
from sae_sweeps.evaluation.ratios import explain_missing, require_numbers
from sae_sweeps.runtime.devices import choose_device
from sae_sweeps.runtime.errors import ConfigError, describe_error
from sae_sweeps.runtime.paths import place, shorten_name
from sae_sweeps.runtime.provenance import provenance
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.preflight import Preflight
from sae_sweeps.sweep.result_files import find_changed
from sae_sweeps.sweep.saved_saes import SavedSAE, find_saved_sae, from_point
from sae_sweeps.tracking.run import Run, start_run

log = logging.getLogger(__name__)

SETTINGS_WITHOUT_EFFECT = ("checkpoint_every",)  # do not change results, so the hash of a study omits them
VERSION = 1  # version of the computations; after a change, finished studies run again


@dataclass(frozen=True)
class Study:
    """A study of one or more trained SAEs: the task, the SAEs, the settings, and the folder of the results.

    config: configuration of the first SAE, with name, output_root, device, tracking and task of the command
    saved: the SAEs by role in the study, such as "small" and "large"
    """

    task: str
    folder: Path
    config: Config
    saved: dict[str, SavedSAE]
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the name of the study, which is also the name of the folder."""
        return self.folder.name

    @classmethod
    def from_command(
        cls, task: str, sweep: Sweep, command: Config, title: str, saved: dict[str, SavedSAE], settings: dict[str, Any]
    ) -> "Study":
        """Build a study in a folder named by `title` and a hash of the settings and the SAEs' weights.

        Raises: ConfigError for another model or hook than the SAEs', documents of their training, or no valid name.
        """
        for one in saved.values():
            _require_source(task, one, command)
        main = _apply_command(next(iter(saved.values())), command)
        hashed_settings = {name: value for name, value in settings.items() if name not in SETTINGS_WITHOUT_EFFECT}
        taken = ("name", "output_root", "device", "tracking", "task")
        config = replace(main, **{name: getattr(command, name) for name in taken})
        evaluated = asdict(main.evaluation)
        weights = {part: one.digest() for part, one in saved.items()}
        identity = [VERSION, task, hashed_settings, weights, select_stream_settings(main), evaluated]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        folder = place(sweep.folder / task, shorten_name(title, f"-{digest}"), "name")
        return cls(task, folder, config, saved, settings)

    def load_source(self) -> ActivationSource:
        """Load the language model and the text. Raises: ConfigError if the model or the text cannot be used."""
        source = self.load_activations()
        assert isinstance(source, ActivationSource), "_require_source has refused synthetic activations"
        return source

    def load_activations(self) -> Source:
        """Load the source of the activations, for a study that synthetic activations are enough for.

        Raises: ConfigError if the language model or the text cannot be used.
        """
        for error in Preflight().find_problems(self.config):
            raise error
        return load_source(self.config, choose_device(self.config.device))

    def load_sae(self, part: str, source: Source) -> InferenceSAE:
        """Load the SAE with the role `part` in the study, such as "small".

        Raises: ConfigError if the files cannot be read, or d_in differs from the width of the activations.
        """
        saved = self.saved[part]
        sae = saved.load_for(source, self.config)
        if sae.d_in != source.d_in:
            problem = f"d_in is {sae.d_in}, but activations of {self.config.model.name} have width {source.d_in}"
            raise ConfigError(saved.setting, str(saved.folder), problem, "set model=... to the SAE's model")
        return sae

    def track(self, axis: str, fill: Callable[[Run], None], metrics: dict[str, Any]) -> None:
        """Log the study to a new W&B run in the group of the sweep. The run's config names the SAEs and their W&B runs.

        axis: name of the value on the x-axis of all curves, such as "step"
        fill: logs curves, tables and figures to the run; a W&B error is logged, and the study still succeeds
        """
        config = {"study": self.describe(), "config": select_shown_settings(self.config), **provenance()}
        group, tracking, run = self.config.name, self.config.tracking, Run()
        try:
            run = start_run(tracking, self.folder, group=group, job_type=self.task, config=config, axis=axis)
            fill(run)
            run.finish(metrics)
        except Exception as error:
            log.warning("%s: the W&B run is incomplete, all files are written (%s)", self.name, describe_error(error))
            run.finish(failed=True)

    def is_done(self) -> bool:
        """Return whether the study has results, with intact tables, of the SAEs' files as they are now."""
        return point_state.is_done(self.folder) and not self.find_changed()

    def find_changed(self) -> list[str]:
        """Return which files of the SAEs and in the folder are not those that the results in the folder are about."""
        results = point_state.read_results(self.folder) or {}
        about = results.get("study", {})
        changed = [file for part, one in self.saved.items() for file in one.find_changed(about.get(part))]
        return changed + find_changed(self.folder, results)

    def describe(self) -> dict[str, Any]:
        """Return the entry `study` of results.json: task, name, a description of each SAE, and settings."""
        return {
            "task": self.task,
            "name": self.name,
            **{part: one.describe() for part, one in self.saved.items()},
            "settings": self.settings,
        }

    def write_results(self, metrics: dict[str, Any], **more: Any) -> None:
        """Write results.json, which marks the study as done. Raises: TrainingError if a metric is NaN or infinite."""
        require_numbers(metrics, "Check the weights of the SAE")
        content = {"study": self.describe(), "metrics": metrics, "missing": explain_missing(metrics), **more}
        content |= {"config": asdict(self.config), "provenance": provenance()}
        point_state.write_results(self.folder, content)


def _apply_command(saved: SavedSAE, command: Config) -> Config:
    """Return an SAE's configuration with the command's settings for the text and for running the language model.

    Raises: ConfigError if the command sets another model or hook, or documents that the SAE was trained on.
    """
    given = {"model.name" if setting == "model" else setting for setting in command.given}
    for setting in _find_unlike_settings(saved.config.model, command.model):
        if setting in given:
            problem = f"{saved.title} was trained with {setting}={get_setting(saved.config, setting)}"
            fix = f"leave {setting} out; an SAE uses its own model and hook"
            raise ConfigError(setting, get_setting(command, setting), problem, fix)
    config = saved.configure(command)
    _require_held_out(saved, config.dataset)
    return config


def _require_source(task: str, saved: SavedSAE, command: Config) -> None:
    """Require that a study can be made of the SAE's activations: many need a language model and text.

    Raises: ConfigError if synthetic activations are not enough for it, or if the command names other activations.
    """
    is_synthetic = saved.config.dataset.is_synthetic
    if is_synthetic and task not in WITHOUT_MODEL:
        problem = f"needs a language model, but {saved.title} was trained on synthetic activations"
        raise ConfigError("task", task, problem, f"task={', task='.join(WITHOUT_MODEL)} or another SAE")
    given = {"dataset", "dataset.format"} & set(command.given)
    if given and is_synthetic != command.dataset.is_synthetic:
        kind, other = ("synthetic activations", "text") if is_synthetic else ("text", "synthetic activations")
        problem = f"{saved.title} was trained on {kind}, and cannot be measured on {other}"
        raise ConfigError("dataset", command.dataset.format, problem, "leave dataset out")


def _require_held_out(saved: SavedSAE, dataset: DatasetConfig) -> None:
    """Require that the held-out documents of `dataset` are not training documents of the SAE. Raises: ConfigError."""
    trained_on = saved.config.dataset
    documents = [(each.format, each.name, each.subset, each.split, each.globs) for each in (dataset, trained_on)]
    if documents[0] == documents[1] and dataset.holdout_every % trained_on.holdout_every != 0:
        problem = f"with this value, {saved.title} would be evaluated on documents that it was trained on"
        fix = f"set dataset.holdout_every to {trained_on.holdout_every} or a multiple of {trained_on.holdout_every}"
        raise ConfigError("dataset.holdout_every", dataset.holdout_every, problem, fix)


def collect_saved(sweep: Sweep) -> tuple[list[SavedSAE], list[str]]:
    """Return the SAEs of all points of a sweep, and the names of unfinished points, which may have no SAE yet."""
    points = sweep.points()
    unfinished = [point.name for point in points if not point_state.is_done(point.folder)]
    return [from_point(point) for point in points], unfinished


def describe_unfinished(names: Sequence[str]) -> str:
    """Return a sentence that says which unfinished points are skipped; empty if `names` is empty."""
    return f"points without a trained SAE are skipped: {', '.join(names)}" if names else ""


def find_named(command: Config) -> list[SavedSAE]:
    """Return a list of the SAE of `saved=`, empty if `saved` is unset. Raises: ConfigError if there is no such SAE."""
    return [] if command.saved is None else [find_saved_sae(command.saved, "saved", command)]


def plan_per_sae(task: str, sweep: Sweep, command: Config, settings: dict[str, Any]) -> tuple[list[Study], str]:
    """Return one study per SAE that the command selects, and one sentence on skipped points (empty if there are none).

    Raises: ConfigError if the SAE of `saved=` does not exist.
    """
    saved, skipped_reason = find_named_or_done(sweep, command)
    studies = [Study.from_command(task, sweep, command, one.title, {"sae": one}, settings) for one in saved]
    return studies, skipped_reason


def find_named_or_done(sweep: Sweep, command: Config) -> tuple[list[SavedSAE], str]:
    """Return the SAE of `saved=`, or by default the SAEs of all finished points, and one sentence on skipped points.

    Raises: ConfigError if the SAE of `saved=` does not exist.
    """
    if named := find_named(command):
        return named, ""
    return collect_done(sweep)


def collect_done(sweep: Sweep) -> tuple[list[SavedSAE], str]:
    """Return the SAEs of all finished points of a sweep, and one sentence on skipped points (empty if none are)."""
    saved, unfinished = collect_saved(sweep)
    return [one for one in saved if one.name not in unfinished], describe_unfinished(unfinished)


def require_same_activation(first: SavedSAE, second: SavedSAE) -> None:
    """Require that two SAEs were trained at the same hook of the same model. Raises: ConfigError if they were not."""
    for setting in _find_unlike_settings(first.config.model, second.config.model):
        value, other = get_setting(first.config, setting), get_setting(second.config, setting)
        problem = f"the SAE was trained with {setting}={value}, but {second.folder} with {setting}={other}"
        raise ConfigError(first.setting, str(first.folder), problem, "give two SAEs of the same model and hook")


def _find_unlike_settings(model: ModelConfig, other: ModelConfig) -> list[str]:
    """Return which of `model.name` and `model.hook` make the activations of two models differ."""
    is_same = {
        "model.name": is_same_model(model.name, [other.name, *other.aliases]),
        "model.hook": is_same_activation(model.hook, other.hook),
    }
    return [setting for setting, same in is_same.items() if not same]
