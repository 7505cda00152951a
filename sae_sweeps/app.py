"""From a composed configuration to a task: check everything, run, report."""

import importlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sae_sweeps.config import Config, point_name, register, to_config
from sae_sweeps.errors import ConfigError, TrainingError
from sae_sweeps.hydra_errors import as_config_error
from sae_sweeps.preflight import check, unwritable

log = logging.getLogger(__name__)

register()


def command_line(main: Callable[[], None]) -> None:
    """Run Hydra's main function; what a user did wrong ends in one line and exit code 1, without a traceback."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # have Hydra raise its errors, to be told here
    for flag in {"-m", "--multirun"}.intersection(sys.argv[1:]):
        # Hydra wants it before the first setting or behind the last; here it may stand anywhere
        sys.argv.remove(flag)
        sys.argv.insert(1, flag)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # a plea to end is one Ctrl-C
    try:
        main()
    except RefusedError as refused:
        _refuse(refused.lines)
    except (HydraException, OmegaConfBaseException) as error:
        _refuse([str(as_config_error(error) or " ".join(str(error).split()))])
    except OSError as error:  # Hydra makes the point's folder before anything of ours runs
        if error.filename is None:
            raise
        _refuse([str(unwritable(error.filename, error))])
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)


def _refuse(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(1)


def run(cfg: DictConfig) -> None:
    """Hydra's task function. Alone it is a sweep of one point; under a launcher, one of its points."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        _run_task(cfg)
        return
    folder = Path(HydraConfig.get().runtime.output_dir)
    untouched = [entry.name for entry in folder.iterdir()] == [".hydra"]
    try:
        run_sweep([cfg], _attempt)
    except RefusedError as refused:
        if untouched:  # Hydra made it before anything was checked
            shutil.rmtree(folder)
        _refuse(refused.lines)


def _attempt(cfg: DictConfig) -> JobReturn:
    """Run a task that Hydra has prepared already."""
    try:
        _run_task(cfg)
        return JobReturn(status=JobStatus.COMPLETED)
    except Exception as error:
        return JobReturn(status=JobStatus.FAILED, _return_value=error)


def _run_task(cfg: DictConfig) -> None:
    config = to_config(cfg)
    task = importlib.import_module(f"sae_sweeps.tasks.{config.task.name}")
    task.run(config, Path(HydraConfig.get().runtime.output_dir))


def run_sweep(cfgs: Sequence[DictConfig], run_point: Callable[[DictConfig], JobReturn]) -> list[JobReturn]:
    """Check all points, run each, report. Exits with 1 if one was refused or failed."""
    named = [(point_name(cfg), to_config(cfg)) for cfg in cfgs]
    refuse_invalid(named)
    configs = dict(named)
    points = {folder: cfg for (folder, _), cfg in zip(named, cfgs, strict=True)}
    if len(points) < len(cfgs):
        log.info("%d of %d points are equal to another and run once", len(cfgs) - len(points), len(cfgs))

    from sae_sweeps.display import Display
    from sae_sweeps.sweep import Sweep, report

    sweep = Sweep(next(iter(configs.values())))
    sweep.add(configs)
    results, failures = [], {}
    with Display(len(points)).live() as display:
        for folder, cfg in points.items():
            sweep.set_state(folder, "running")
            try:
                result = run_point(cfg)
            except BaseException:  # Ctrl-C: the point can go on later
                sweep.set_state(folder, "interrupted")
                raise
            results.append(result)
            reason = _failure(result)
            sweep.set_state(folder, "failed" if reason else "done", reason)
            if reason:
                failures[folder] = reason
            display.point_finished()
    report(sweep, list(points), failures)
    if failures:
        sys.exit(1)
    return results


def _failure(result: JobReturn) -> str | None:
    """Why a point failed, in one line; None if it did not. Its traceback goes to the log, unless it was foreseen."""
    if result.status == JobStatus.COMPLETED:
        return None
    error = result._return_value
    if isinstance(error, (ConfigError, TrainingError)):
        return str(error)
    log.error("%s", error, exc_info=error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class RefusedError(Exception):
    """Points that cannot run, told in `lines`; nothing was run."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(*lines)
        self.lines = lines


def refuse_invalid(points: Sequence[tuple[str, Config]]) -> None:
    """Raises: RefusedError, naming every problem once, if any point (folder, configuration) cannot run."""
    sweeps = sorted({f"{config.output_root}/{config.name}" for _, config in points})
    if len(sweeps) > 1:
        problem = "the points of one command are one sweep, in one folder"
        raise RefusedError(
            [str(ConfigError("name", ", ".join(sweeps), problem, "give one name, or run a command for each"))]
        )
    lines: dict[str, list[str]] = {}
    for folder, config in points:
        for error in check(config):
            lines.setdefault(str(error), []).append(folder)
    if not lines:
        for device in {config.device for _, config in points}:
            _refuse_missing(device)
        return
    if len(points) == 1:
        raise RefusedError(list(lines))
    bad = {folder for folders in lines.values() for folder in folders}
    refusals = [f"{len(bad)} of {len(points)} points are invalid; nothing was run"]
    for line, folders in lines.items():
        everywhere = len(folders) == len(points)
        refusals.append(f"{line} (in {'every point' if everywhere else ', '.join(folders)})")
    raise RefusedError(refusals)


def _refuse_missing(device: str) -> None:
    """The last check, for it takes importing torch."""
    from sae_sweeps.tasks.inputs import choose_device

    try:
        choose_device(device)
    except ConfigError as error:
        raise RefusedError([str(error)]) from None
