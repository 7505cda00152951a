"""What the studies of trained SAEs have in common: which SAEs, a folder for each study, one at a time, failures.

outputs/<name>/<task>/<study>/results.json    the study is done; the same command leaves it as it is
outputs/<name>/<task>/<study>/launch.log      and tables and figures, as docs/studies.md lists them
outputs/<name>/<task>.csv                     a row per study
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from sae_sweeps.activations.hooks import is_same_activation
from sae_sweeps.activations.model_info import is_same_model
from sae_sweeps.activations.source import ActivationSource, load_source
from sae_sweeps.config import Config, DatasetConfig, ModelConfig
from sae_sweeps.config.differences import find_differing, text_settings
from sae_sweeps.config.identity import apply_command_settings, stream_settings
from sae_sweeps.config.schema import get_setting
from sae_sweeps.runtime import logs, signals
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.devices import choose_device
from sae_sweeps.runtime.errors import NO_POINTS, ConfigError, LockedError, NotRunError, describe_error
from sae_sweeps.runtime.files import read_json, write_csv, write_json
from sae_sweeps.runtime.progress import PointProgress, SweepProgress, point_display
from sae_sweeps.runtime.provenance import provenance
from sae_sweeps.saes import SAE
from sae_sweeps.sweep import Sweep, point_state
from sae_sweeps.sweep.preflight import check
from sae_sweeps.sweep.saved_saes import SavedSAE, find_saved_sae, from_point
from sae_sweeps.tracking.run import Run, start_run

log = logging.getLogger(__name__)

SETTINGS_WITHOUT_EFFECT = ("checkpoint_every",)  # settings that decide nothing of a result
LOCK_TIMEOUT, LOCK_TIMEOUT_IN_JOB = 5.0, 1800.0  # seconds; a process may outlive the job that it was of
VERSION = 1  # of what studies compute: one that is done is done again when this has changed


@dataclass(frozen=True)
class Study:
    """One study: of which SAEs, with which settings, where. `config` is the first SAE's, with the command's device,
    tracking and folders."""

    task: str
    folder: Path
    config: Config
    saved: dict[str, SavedSAE]  # by the part that each plays
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @classmethod
    def from_command(
        cls, task: str, sweep: Sweep, command: Config, title: str, saved: dict[str, SavedSAE], settings: dict[str, Any]
    ) -> "Study":
        """A study whose folder is named by its title and a hash of its settings and of the SAEs' weights.

        Raises: ConfigError if the command line names another model or hook than the SAEs are of.
        """
        main = _apply_command(next(iter(saved.values())), command)
        of_the_result = {name: value for name, value in settings.items() if name not in SETTINGS_WITHOUT_EFFECT}
        config = replace(
            main,
            **{name: getattr(command, name) for name in ("name", "output_root", "device", "tracking", "task")},
        )
        evaluated = asdict(main.evaluation)
        weights = {part: one.digest() for part, one in saved.items()}
        deciding = json.dumps([VERSION, task, of_the_result, weights, stream_settings(main), evaluated], sort_keys=True)
        digest = hashlib.sha256(deciding.encode()).hexdigest()[:8]
        return cls(task, sweep.folder / task / f"{title}-{digest}", config, saved, settings)

    def load_source(self) -> ActivationSource:
        """The language model and the text. Raises: ConfigError if they cannot be had any more."""
        for error in check(self.config):
            raise error
        return load_source(self.config, choose_device(self.config.device))

    def load_sae(self, part: str, source: ActivationSource) -> SAE:
        """The SAE that plays this part.

        Raises: ConfigError if it cannot be read, or is of activations of another width.
        """
        one = self.saved[part]
        sae = one.load(source.device)
        if sae.d_in != source.d_in:
            problem = f"is of activations {sae.d_in} wide, and those of {self.config.model.name} are {source.d_in} wide"
            raise ConfigError(one.setting, str(one.folder), problem, "model=..., the model that it was trained on")
        return sae

    def track(self, axis: str, fill: Callable[[Run], None], metrics: dict[str, Any]) -> None:
        """Its run in W&B, of the sweep's group, with the points that it is about and their runs. The study is done
        before: that W&B fails is told, and is no failure of it."""
        config = {"study": self.describe(), "config": asdict(self.config), **provenance()}
        group, tracking = self.config.name, self.config.tracking
        run = Run()
        try:
            run = start_run(tracking, self.folder, group=group, job_type=self.task, config=config, axis=axis)
            fill(run)
            run.finish(metrics)
        except Exception as error:
            log.warning("%s: its run in W&B is not complete (%s)", self.name, describe_error(error))
            run.finish(failed=True)

    def describe(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "name": self.name,
            **{part: one.described() for part, one in self.saved.items()},
            "settings": self.settings,
        }

    def write_results(self, metrics: dict[str, Any], **more: Any) -> None:
        """Write results.json, last of all that is computed."""
        content = {"study": self.describe(), "metrics": metrics, **more}
        content |= {"config": asdict(self.config), "provenance": provenance()}
        write_json(self.folder / point_state.RESULTS, content)


def _apply_command(one: SavedSAE, command: Config) -> Config:
    """The configuration of an SAE, with what the command line says of the text. Raises: ConfigError, see `Study.of`."""
    given = {"model.name" if setting == "model" else setting for setting in command.given}
    for setting in _find_unlike_settings(one.config.model, command.model):
        if setting in given:
            problem = f"{one.title} is of {get_setting(one.config, setting)}"
            raise ConfigError(setting, get_setting(command, setting), problem, "leave it out: an SAE brings its model")
    config = apply_command_settings(one.config, command)
    _require_held_out(one, config.dataset)
    return config


def _require_held_out(one: SavedSAE, dataset: DatasetConfig) -> None:
    """Raises: ConfigError if of the text that a point was trained on other documents are to be held out."""
    trained_on = one.config.dataset
    documents = [(each.format, each.name, each.subset, each.split, each.globs) for each in (dataset, trained_on)]
    if documents[0] == documents[1] and dataset.holdout_every % trained_on.holdout_every != 0:
        problem = f"would measure {one.title} on documents that it was trained on"
        fix = f"dataset.holdout_every={trained_on.holdout_every}, or a multiple of it"
        raise ConfigError("dataset.holdout_every", dataset.holdout_every, problem, fix)


def collect_saved(sweep: Sweep) -> tuple[list[SavedSAE], list[str]]:
    """The SAEs of a sweep's points, and the names of those that are not done."""
    points = sweep.points()
    return [from_point(point) for point in points], [
        point.name for point in points if not point_state.is_done(point.folder)
    ]


def describe_unfinished(names: Sequence[str]) -> str:
    """What is to be said of points that are not done; nothing if there are none."""
    return f"not done: {', '.join(names)}" if names else ""


def find_named(command: Config) -> list[SavedSAE]:
    """The SAE that `saved=` names, if it names one. Raises: ConfigError if there is none."""
    return [] if command.saved is None else [find_saved_sae(command.saved, "saved", command)]


def plan_per_sae(task: str, sweep: Sweep, command: Config, settings: dict[str, Any]) -> tuple[list[Study], str]:
    """A study of each SAE that a command is about, and what is to be said of those that cannot be studied.

    Raises: ConfigError if an SAE is named that is not there.
    """
    found, skipped_reason = find_named_or_done(sweep, command)
    return [
        Study.from_command(task, sweep, command, one.title, {"sae": one}, settings) for one in found
    ], skipped_reason


def find_named_or_done(sweep: Sweep, command: Config) -> tuple[list[SavedSAE], str]:
    """The SAE that a command names, else those of the sweep's points that are done; and what is to be said of the
    others. Raises: ConfigError if an SAE is named that is not there."""
    if found := find_named(command):
        return found, ""
    everyone, undone = collect_saved(sweep)
    return [one for one in everyone if one.name not in undone], describe_unfinished(undone)


def run_studies(
    studies: Sequence[Study], work: Callable[[Study, PointProgress], None], skipped_reason: str = ""
) -> list[str]:
    """Run one after another; one that fails does not stop the others. Returns why those that failed have failed.

    skipped_reason: why SAEs cannot be studied, one sentence; empty if all can. Raises: NotRunError if no study is left,
    Stopped on a stop signal.
    """
    if not studies:
        raise NotRunError(skipped_reason or NO_POINTS)
    failures = [skipped_reason] if skipped_reason else []
    with SweepProgress(len(studies), "studies").live() as display:
        for study in studies:
            failed = None
            if point_state.is_done(study.folder):
                log.info("%s: done before, left as it is", study.name)
            else:
                failed = _run(study, work)
            if failed is not None:
                failures.append(f"{study.name}: {failed}")
            display.point_finished(failed=failed is not None)
    _write_csv(studies[0].folder.parent)
    return failures


def _run(study: Study, work: Callable[[Study, PointProgress], None]) -> str | None:
    """Returns why the study failed, None if it did not."""
    shown = point_display(study.name)
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
        with _hold_lock(study), logs.log_file(study.folder):
            if point_state.is_done(study.folder):
                return None  # by another process, while this one waited
            try:
                work(study, shown)
            except Exception as error:
                signals.raise_if_stopped()
                logs.log_failure(log, study.name, error)
                return describe_error(error)
    except (OSError, LockedError) as error:
        return describe_error(error)
    finally:
        shown.close()
    return None


@contextmanager
def _hold_lock(study: Study) -> Iterator[None]:
    """Hold the study's lock, which goes with the process. Raises: LockedError if another process does not let go."""
    lock = FileLock(study.folder / point_state.LOCK)
    deadline = time.monotonic() + (LOCK_TIMEOUT if point_state.this_job() is None else LOCK_TIMEOUT_IN_JOB)
    if not point_state.acquire(lock, deadline):
        raise LockedError("another process is at work on this study; let it end, or stop it")
    try:
        yield
    finally:
        lock.release()


def _write_csv(folder: Path) -> None:
    """A row per study of this kind, in the order of their names, with what differs in the text that they are of."""
    rows = []
    found = {file: read_json(file) for file in sorted(folder.glob(f"*/{point_state.RESULTS}"))}
    texts = [text_settings(results["config"]) for results in found.values()]
    names = find_differing(texts) if texts else []
    for (file, results), text in zip(found.items(), texts, strict=True):
        flat: dict[str, Any] = {"study": file.parent.name}
        for part, value in results["study"].items():
            if isinstance(value, dict) and "point" in value:
                flat |= {part: value["point"]}
        settings = results["study"]["settings"]
        flat |= {name: value for name, value in settings.items() if not isinstance(value, (list, dict))}
        flat |= {name: text.get(name) for name in names}
        flat |= {name: value for name, value in results["metrics"].items() if not isinstance(value, (list, dict))}
        rows.append(flat)
    if not rows:
        return  # all have failed
    path = folder.with_suffix(".csv")
    write_csv(path, rows)
    console.print(f"studies: {folder}/  table: {path}", markup=False, soft_wrap=True)


def require_same_activation(first: SavedSAE, second: SavedSAE) -> None:
    """Raises: ConfigError if two SAEs are not of one hook of one model."""
    for setting in _find_unlike_settings(first.config.model, second.config.model):
        here, there = get_setting(first.config, setting), get_setting(second.config, setting)
        problem = f"its {setting} is {here}, that of {second.folder} {there}"
        raise ConfigError(first.setting, str(first.folder), problem, "compare SAEs of one hook of one model")


def _find_unlike_settings(model: ModelConfig, other: ModelConfig) -> list[str]:
    """The settings in which two SAEs are not of the same activations."""
    alike = {
        "model.name": is_same_model(model.name, [other.name, *other.aliases]),
        "model.hook": is_same_activation(model.hook, other.hook),
    }
    return [setting for setting, is_alike in alike.items() if not is_alike]
