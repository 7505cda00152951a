"""Checks the points of a command and passes them to a launcher, or runs a task on the sweep."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sae_sweeps.config import Config
from sae_sweeps.config.tasks import SWEEP_TASKS
from sae_sweeps.launchers.checks import distinct_studies, refuse_invalid, refuse_running, refuse_several_tasks
from sae_sweeps.launchers.protocol import Launcher
from sae_sweeps.launchers.sweep_task import run_sweep_task
from sae_sweeps.runtime.errors import ConfigError, RefusedError
from sae_sweeps.runtime.held import holding_sweep
from sae_sweeps.runtime.leftovers import remove_leftovers
from sae_sweeps.sweep import Point, Sweep, point_state

log = logging.getLogger(__name__)


def launch(
    named: Sequence[tuple[str, Config]], launcher: Launcher, left_out: int = 0, *, follows_up: bool = True
) -> bool:
    """Check all points, then run them with the launcher, or run the task that they name on the whole sweep.

    named: folder name and configuration of each point
    left_out: number of combinations of values that the setting `leave_out` leaves out, for the plan and the log
    follows_up: whether to run the follow-up tasks (`then`) too; else `follow_up` does so later
    Returns False if a point or a follow-up task failed. Exits with 1 if the task on the whole sweep failed.
    Raises: RefusedError if a point or task cannot run; in this case nothing was run.
    """
    configs = [config for _, config in named]
    refuse_several_tasks(configs)
    task = configs[0].task.name
    if task in SWEEP_TASKS and task != "plan":
        run_sweep_task(configs, launcher)
        return True
    refuse_invalid(named, launcher)
    _refuse_different_follow_ups(configs)
    if left_out and task != "plan":  # the plan has the number itself
        log.info("left out %d of %d combinations, as leave_out says", left_out, left_out + len(named))
    by_name = dict(named)
    if len(by_name) < len(named):
        log.info("%d of %d points are duplicates of others and will not run", len(named) - len(by_name), len(named))
    return _launch_points(by_name, launcher, left_out, follows_up)


def follow_up(by_name: Mapping[str, Config], launcher: Launcher) -> bool:
    """Run the follow-up tasks (`then`) of points that earlier calls of `launch` have run. Returns False if one failed.

    by_name: folder name -> configuration of each point
    """
    config = next(iter(by_name.values()))
    sweep = Sweep.from_config(config)
    points = [Point(config, sweep.folder.absolute() / name) for name, config in by_name.items()]
    done = [point for point in points if point_state.is_done(point.folder)]
    if not done or not config.then:
        return True
    with holding_sweep(sweep.folder):
        return launcher.follow_up(sweep, done, config.then)


def _launch_points(by_name: dict[str, Config], launcher: Launcher, left_out: int, follows_up: bool) -> bool:
    """Plan a sweep, check the settings `limits`, and run or submit the points. The task `plan` only shows the plan.

    by_name: folder name -> configuration of each point
    left_out: number of combinations of values that the setting `leave_out` leaves out
    follows_up: whether to run the follow-up tasks too
    Returns False if a point or task failed.
    Raises: RefusedError if the plan exceeds a limit, or if another process trains all the points already.
    """
    from sae_sweeps.sweep.plan import Plan

    config = next(iter(by_name.values()))
    sweep = Sweep.from_config(config)
    points = [Point(config, sweep.folder.absolute() / name) for name, config in by_name.items()]
    plan = Plan.from_points(points, launcher.max_points, is_local=launcher.is_local, partition=launcher.device_type)
    plan = replace(plan, left_out=left_out)
    if config.task.name == "plan":
        plan.show()
    if exceeded := plan.exceeded_limits(config.limits):
        raise RefusedError([str(error) for error in exceeded])
    if config.task.name == "plan":
        return True
    if launcher.is_local:
        refuse_running(sweep, points)
    sweep.add(by_name)
    remove_leftovers(sweep.folder)
    remove_leftovers(sweep.folder.parent, below=False)
    with holding_sweep(sweep.folder):
        launcher.prepare(list(by_name))
        return launcher.dispatch(sweep, points, config.then if follows_up else [])


def _refuse_different_follow_ups(configs: Sequence[Config]) -> None:
    """Check the follow-up tasks (`then`). Raises: RefusedError if points have different settings for these tasks."""
    then = configs[0].then
    if then and len(distinct_studies(configs, *then)) > 1:
        problem = "runs once for all points, so the settings of these tasks must be equal in all points"
        fix = "train without then, and after that run a task with several values, such as -m task=meta_sae meta.k=2,4"
        raise RefusedError([str(ConfigError("then", f"[{','.join(then)}]", problem, fix))])
