"""From a composed configuration to a task: check everything, run, report."""

import importlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sae_sweeps.config import Config, point_name, register, to_config
from sae_sweeps.errors import ConfigError, RefusedError, reason
from sae_sweeps.hydra_errors import as_config_error
from sae_sweeps.packs import Limits, Point, into_packs, limits_of
from sae_sweeps.preflight import check, unwritable

log = logging.getLogger(__name__)

NO_LIMITS = Limits()

register()


def command_line(main: Callable[[], None]) -> None:
    """Run Hydra's main function; what a user did wrong ends in one line and exit code 1, without a traceback."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # have Hydra raise its errors, to be told here
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or processes that share cores slow each other several times
    for flag in {"-m", "--multirun"}.intersection(sys.argv[1:]):
        # Hydra wants it before the first setting or behind the last; here it may stand anywhere
        sys.argv.remove(flag)
        sys.argv.insert(1, flag)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a plea to end is one Ctrl-C
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
    """Hydra's task function, for a command without -m: a sweep of one point. Launchers call `run_sweep` themselves."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    untouched = [entry.name for entry in folder.iterdir()] == [".hydra"]
    launcher = HydraConfig.get().launcher
    try:
        run_sweep([cfg], limits=limits_of(launcher.get("max_points"), launcher.get("max_memory")))
    except RefusedError as refused:
        if untouched:  # Hydra made it before anything was checked
            shutil.rmtree(folder)
        _refuse(refused.lines)


def run_sweep(
    cfgs: Sequence[DictConfig],
    prepare: Callable[[DictConfig], JobReturn] | None = None,
    limits: Limits = NO_LIMITS,
) -> list[JobReturn]:
    """Check all points, run them pack by pack, report. Exits with 1 if one was refused or failed.

    `prepare` has Hydra make a point's folder, where it has not yet.
    """
    began = time.monotonic()
    named = [(point_name(cfg), to_config(cfg)) for cfg in cfgs]
    refuse_invalid(named)
    configs = dict(named)
    by_name = {name: cfg for (name, _), cfg in zip(named, cfgs, strict=True)}
    if len(by_name) < len(cfgs):
        log.info("%d of %d points are equal to another and run once", len(cfgs) - len(by_name), len(cfgs))

    from sae_sweeps.display import Display
    from sae_sweeps.sweep import Sweep, report

    sweep = Sweep(next(iter(configs.values())))
    sweep.add(configs)
    returns = {name: prepare(cfg) if prepare else JobReturn() for name, cfg in by_name.items()}
    points = [Point(config, sweep.folder.absolute() / name) for name, config in configs.items()]
    packs = into_packs(points, limits.points)
    if len(packs) > 1:
        log.info("%d points in %d packs of %s", len(configs), len(packs), " + ".join(str(len(pack)) for pack in packs))
    failures: dict[str, str] = {}
    with Display(len(configs)).live() as display:
        for pack in packs:
            waiting = {point.name for point in pack}

            def outcome(point: Point, error: Exception | None, waiting: set[str] = waiting) -> None:
                waiting.discard(point.name)
                if error is not None:
                    failures[point.name] = reason(error)
                sweep.set_state(point.name, "failed" if error else "done", failures.get(point.name))
                returns[point.name].status = JobStatus.FAILED if error else JobStatus.COMPLETED
                display.point_finished(failed=error is not None)

            sweep.set_states(waiting, "running")
            task = importlib.import_module(f"sae_sweeps.tasks.{pack[0].config.task.name}")
            try:
                task.run(pack, limits, outcome)
            except Exception as error:  # what all of the pack need cannot be had
                for point in pack:
                    if point.name in waiting:
                        outcome(point, error)
            except BaseException:  # Ctrl-C: the points can go on later
                sweep.set_states(waiting, "interrupted")
                raise
    report(sweep, list(configs), failures, time.monotonic() - began)
    if failures:
        sys.exit(1)
    return list(returns.values())


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
        for device, precision in {(config.device, config.training.precision) for _, config in points}:
            _refuse_missing(device, precision)
        return
    if len(points) == 1:
        raise RefusedError(list(lines))
    bad = {folder for folders in lines.values() for folder in folders}
    refusals = [f"{len(bad)} of {len(points)} points are invalid; nothing was run"]
    for line, folders in lines.items():
        everywhere = len(folders) == len(points)
        refusals.append(f"{line} (in {'every point' if everywhere else ', '.join(folders)})")
    raise RefusedError(refusals)


def _refuse_missing(device: str, precision: str) -> None:
    """The last check, for it takes importing torch."""
    from sae_sweeps.tasks.inputs import choose_device

    try:
        if choose_device(device).type != "cuda" and precision == "tf32":
            fix = "training.precision=float32 or bfloat16"
            raise ConfigError("training.precision", precision, "needs a CUDA device", fix)
    except ConfigError as error:
        raise RefusedError([str(error)]) from None
