"""Runs the studies of a task one after another: a folder and lock per study, failures, a table of results.

outputs/<name>/<task>/<study>/results.json    written last; a study with this file is done, and the command skips it
outputs/<name>/<task>/<study>/launch.log      the log; tables and figures beside it are listed in docs/studies.md
outputs/<name>/<task>.csv                     a row per study
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from sae_sweeps.config.differences import find_differing, select_text_settings, shorten_paths
from sae_sweeps.runtime import logs, signals
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import NO_POINTS, LockedError, NotRunError, describe_error
from sae_sweeps.runtime.files import write_csv
from sae_sweeps.runtime.progress import PointProgress, SweepProgress
from sae_sweeps.sweep import point_state
from sae_sweeps.tasks.study import Study

log = logging.getLogger(__name__)

LOCK_TIMEOUT, LOCK_TIMEOUT_IN_JOB = 5.0, 1800.0  # seconds; longer in a Slurm job: a process may outlive the job


def run_studies(
    studies: Sequence[Study], run_one: Callable[[Study, PointProgress], None], skipped_reason: str = ""
) -> list[str]:
    """Run studies one after another, also after a failure. Returns one sentence per failure.

    skipped_reason: one sentence on SAEs that are not studied; it counts as a failure unless it is empty
    Raises: NotRunError if `studies` is empty. Stopped on a stop signal.
    """
    if not studies:
        raise NotRunError(skipped_reason or NO_POINTS)
    failures = [skipped_reason] if skipped_reason else []
    with SweepProgress(len(studies), "studies").live() as display:
        for study in studies:
            failure = None
            if study.is_done():
                log.info("%s: this study is already done and is skipped", study.name)
            else:
                failure = _run(study, run_one, display)
            if failure is not None:
                failures.append(f"{study.name}: {failure}")
            display.count_finished(failed=failure is not None)
    _write_csv(studies[0].folder.parent)
    return failures


def _run(study: Study, run_one: Callable[[Study, PointProgress], None], progress: SweepProgress) -> str | None:
    """Run a study while holding the lock of the study's folder. Returns the error in one line, None on success."""
    display = progress.add_point(study.name)
    try:
        with _hold_lock(study), logs.log_file(study.folder):
            if study.is_done():
                return None  # another process finished the study while this process waited for the lock
            if changed := study.find_changed():
                log.warning("%s: %s changed after this study, which is run again", study.name, ", ".join(changed))
            try:
                run_one(study, display)
            except Exception as error:
                signals.raise_if_stopped()
                logs.log_failure(log, study.name, error)
                return describe_error(error)
    except (OSError, LockedError) as error:
        return describe_error(error)
    finally:
        display.close()
    return None


@contextmanager
def _hold_lock(study: Study) -> Iterator[None]:
    """Hold the lock file of the study. The operating system releases the lock when the process ends.

    Raises: LockedError if another process still holds the lock after the timeout.
    """
    lock = FileLock(study.folder / point_state.LOCK)
    deadline = time.monotonic() + (LOCK_TIMEOUT if point_state.this_job() is None else LOCK_TIMEOUT_IN_JOB)
    if not point_state.acquire(lock, deadline):
        raise LockedError("another process is running this study; wait for it to end, or stop it")
    try:
        yield
    finally:
        point_state.release(lock)


def _write_csv(folder: Path) -> None:
    """Write <task>.csv with a row per finished study: name, SAEs, settings, differing text settings and metrics."""
    files = sorted(folder.glob(f"*/{point_state.RESULTS}"))
    read = {file: point_state.read_results(file.parent) for file in files}
    found = {file: results for file, results in read.items() if results is not None and "study" in results}
    texts = [select_text_settings(results["config"]) for results in found.values()]
    differing = find_differing(texts) if texts else []
    rows = []
    for (file, results), text in zip(found.items(), texts, strict=True):
        saes = {part: one for part, one in results["study"].items() if isinstance(one, dict) and "point" in one}
        row: dict[str, Any] = {"study": file.parent.name, **{part: one["point"] for part, one in saes.items()}}
        settings = results["study"]["settings"]
        row |= {name: value for name, value in settings.items() if not isinstance(value, (list, dict))}
        row |= {name: text.get(name) for name in differing}
        row |= {name: value for name, value in results["metrics"].items() if not isinstance(value, (list, dict))}
        rows.append(row)
    if not rows:
        return  # all studies failed
    write_csv(folder.with_suffix(".csv"), shorten_paths(rows))
    console.print(f"studies: {folder}/  table: {folder}.csv", markup=False, soft_wrap=True)
