"""From a composed configuration to a task: check everything, run, report."""

import importlib
import json
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sae_sweeps.config import Config, point_name, to_config
from sae_sweeps.config.identity import study_settings
from sae_sweeps.config.resolvers import register
from sae_sweeps.config.tasks import EXPORT_TASKS, STUDY_TASKS, SWEEP_TASKS
from sae_sweeps.config.validation import problems
from sae_sweeps.errors import NO_POINTS, ConfigError, NotRunError, RefusedError
from sae_sweeps.hydra_errors import as_config_error
from sae_sweeps.sweep import Point
from sae_sweeps.sweep.preflight import check, unwritable

if TYPE_CHECKING:
    from sae_sweeps.launchers.base import SweepLauncher
    from sae_sweeps.sweep import Sweep

log = logging.getLogger(__name__)

# settings that they need
OF_SWEEP_TASKS = ("name", "output_root", "format", "explorer_mib", "saved", "publish.repo", "export.folder")

register()


def command_line(main: Callable[[], None]) -> None:
    """Run Hydra's main function; what a user did wrong ends in one line and exit code 1, without a traceback."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # have Hydra raise its errors, to be told here
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or processes that share cores slow each other several times
    for flag in {"-m", "--multirun"}.intersection(sys.argv[1:]):
        # Hydra wants it before the first setting or behind the last; here it may stand anywhere
        sys.argv.remove(flag)
        sys.argv.insert(1, flag)
    several = "task=report" in sys.argv
    sys.argv[1:] = [as_names(word) if several else as_saved(word) for word in sys.argv[1:]]
    if any(re.match(r"sae=[^=]*,", word) for word in sys.argv[1:]):
        sys.argv[1:] = [as_choice(word) for word in sys.argv[1:]]
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


def as_saved(word: str) -> str:
    """`sae=FOLDER` names an SAE that is there, `sae=topk` an architecture: Hydra knows the second alone."""
    setting, _, value = word.partition("=")
    return f"saved={value}" if setting == "sae" and ("/" in value or ":" in value) else word


def as_choice(word: str) -> str:
    """Where architectures are swept, `sae.target_l0=20` as a sweep of one value: Hydra looks at all that is not swept
    with the default architecture, which need not have it."""
    setting, _, value = word.partition("=")
    return f"{setting}=choice({value})" if setting.startswith("sae.") and value and "," not in value else word


def as_names(word: str) -> str:
    """`name=a,b` names several sweeps for one report; Hydra would make several commands of it."""
    setting, _, value = word.partition("=")
    if setting != "name" or "," not in value or value.startswith(("'", '"')):
        return word
    return "name='{}'".format(value.replace("'", "\\'"))


def run(cfg: DictConfig) -> None:
    """Hydra's task function, for a command without -m: a sweep of one point. Launchers call `launch` themselves."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    of_a_point = cfg.task.name not in SWEEP_TASKS  # and so made by Hydra, before anything was checked
    made = of_a_point and [entry.name for entry in folder.iterdir()] == [".hydra"]
    try:
        launch([cfg], instantiate(HydraConfig.get().launcher))
    except RefusedError as refused:
        if made:
            shutil.rmtree(folder)
        _refuse(refused.lines)


def launch(cfgs: Sequence[DictConfig], launcher: "SweepLauncher", many: bool = False) -> list[JobReturn]:
    """Check all points and have the launcher get them done, or run a task on their sweep as a whole.

    With `many`, Hydra has yet to make the points' folders. Exits with 1 if a point was refused or failed.
    """
    named = [(point_name(cfg), to_config(cfg)) for cfg in cfgs]
    config = named[0][1]
    if config.task.name in SWEEP_TASKS and config.task.name != "plan":
        for (_, one), cfg in zip(named, cfgs, strict=True):
            words = cfg.hydra.overrides.task if many else HydraConfig.get().overrides.task
            one.given = [word.partition("=")[0].lstrip("+") for word in words]
        _run_sweep_task([config for _, config in named], launcher)
        return [JobReturn() for _ in cfgs]
    refuse_invalid(named, launcher)
    if config.then and len(_that_differ([config for _, config in named], *config.then)) > 1:
        problem = "what follows has settings of its own, which differ among the points"
        fix = "train first; then, say, -m task=meta_sae meta.k=2,4"
        raise RefusedError([str(ConfigError("then", f"[{','.join(config.then)}]", problem, fix))])
    configs = dict(named)
    by_name = {name: cfg for (name, _), cfg in zip(named, cfgs, strict=True)}
    if len(by_name) < len(cfgs):
        log.info("%d of %d points are equal to another and run once", len(cfgs) - len(by_name), len(cfgs))

    from sae_sweeps.sweep import Sweep
    from sae_sweeps.sweep.plan import Plan

    sweep = Sweep.of(config)
    points = [Point(config, sweep.folder.absolute() / name) for name, config in configs.items()]
    plan = Plan.of(points, launcher.max_points, here=launcher.here)
    if config.task.name == "plan":
        plan.show()
    if over := plan.over(config.limits):
        raise RefusedError([str(error) for error in over])
    if config.task.name == "plan":
        return [JobReturn()]
    sweep.add(configs)
    if many:
        launcher.prepare(list(by_name.values()))
    if not launcher.dispatch(sweep, points, config.then):
        sys.exit(1)
    return [JobReturn() for _ in cfgs]


def _run_sweep_task(configs: Sequence[Config], launcher: "SweepLauncher") -> None:
    """Run a task that looks at what is there of a sweep; a study once with each configuration, wherever the launcher
    runs things. Raises: RefusedError if there is no such sweep, or what a study is to be of is not there."""
    from sae_sweeps.sweep import Sweep

    _refuse_several_sweeps(configs)
    config, task = configs[0], configs[0].task.name
    is_study = task in STUDY_TASKS
    of_saes = is_study or task in EXPORT_TASKS
    if not of_saes:
        configs = configs[:1]
    root = Path(config.output_root)
    look = check if is_study else problems
    found = [error for config in configs for error in [*launcher.problems(config), *look(config)]]
    bad = [error for error in found if is_study or error.setting in OF_SWEEP_TASKS]
    if of_saes and not bad:
        bad = [error for config in configs for error in _not_there(config)]
    sweep = Sweep.of(config)
    given = of_saes and not {config.small, config.large, config.saved} <= {None}
    for name in config.name.split(",") if task == "report" else [config.name]:
        if not bad and not Sweep(root / name).exists() and not given:
            there = sorted(file.parent.name for file in root.glob("*/sweep.json"))
            problem = f"there is no such sweep in {root}; there " + ("are " + ", ".join(there) if there else "is none")
            bad.append(ConfigError("name", name, problem, f"name={there[0]}" if there else "train one first"))
    if bad:
        raise RefusedError(list(dict.fromkeys(map(str, bad))))
    module = importlib.import_module(f"sae_sweeps.tasks.{task}")
    try:
        if is_study:
            configs = _that_differ(configs, task)
            sweep.update(lambda known: None)  # there is a sweep now, if of SAEs from elsewhere alone
            if not launcher.here:
                _submit(task, sweep, configs, launcher)
                return
        failures = [failure for config in configs for failure in module.run_sweep(sweep, config)]
        if is_study:
            from sae_sweeps.tasks import report

            report.refresh(sweep, config)
    except ConfigError as error:
        raise RefusedError([str(error)]) from None
    except NotRunError as error:
        failures = [str(error)]
    for failure in failures:
        print(f"{task}: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)


def _not_there(config: Config) -> Iterator[ConfigError]:
    """The folders of SAEs that a command names and that hold none; told before anything slow is imported."""
    from sae_sweeps.sweep.saved_saes import find

    for setting in ("small", "large", "saved"):
        if (path := getattr(config, setting)) is not None:
            try:
                find(path, setting, config)
            except ConfigError as error:
                yield error


def _submit(task: str, sweep: "Sweep", configs: Sequence[Config], launcher: "SweepLauncher") -> None:
    """Have the studies that are not done run elsewhere. Raises: NotRunError if there are none."""
    from sae_sweeps.sweep.point_state import is_done

    studies = importlib.import_module(f"sae_sweeps.tasks.{task}").studies
    of_each = [studies(sweep, config) for config in configs]
    if not any(found for found, _ in of_each):
        raise NotRunError(of_each[0][1] or NO_POINTS)
    waiting = [
        config
        for config, (found, _) in zip(configs, of_each, strict=True)
        if not all(is_done(study.folder) for study in found)
    ]
    if waiting:
        launcher.submit_task(sweep, task, waiting)
    else:
        print(f"{task}: all done; there is nothing to submit")


def _that_differ(configs: Sequence[Config], *tasks: str) -> list[Config]:
    """The configurations, without those that say the same of these studies as an earlier one."""
    said = [json.dumps([study_settings(config, task) for task in tasks]) for config in configs]
    return list(dict(zip(reversed(said), reversed(configs), strict=True)).values())[::-1]


def refuse_invalid(points: Sequence[tuple[str, Config]], launcher: "SweepLauncher") -> None:
    """Raises: RefusedError, naming every problem once, if launcher or a point (folder, configuration) cannot run."""
    _refuse_several_sweeps([config for _, config in points])
    lines: dict[str, list[str]] = {}
    for folder, config in points:
        for error in [*launcher.problems(config), *check(config)]:
            lines.setdefault(str(error), []).append(folder)
    if not lines:
        if not launcher.here:
            return  # what a node has, only a node can tell
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


def _refuse_several_sweeps(configs: Sequence[Config]) -> None:
    sweeps = sorted({f"{config.output_root}/{config.name}" for config in configs})
    if len(sweeps) > 1:
        problem = "the points of one command are one sweep, in one folder"
        raise RefusedError(
            [str(ConfigError("name", ", ".join(sweeps), problem, "give one name, or run a command for each"))]
        )


def _refuse_missing(device: str, precision: str) -> None:
    """The last check, for it takes importing torch."""
    from sae_sweeps.runtime.devices import choose_device, require_precision

    try:
        require_precision(precision, choose_device(device))
    except ConfigError as error:
        raise RefusedError([str(error)]) from None
