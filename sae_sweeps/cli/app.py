"""The command line around Hydra: rewrites arguments, prints errors in one line, sets exit codes, handles Ctrl-C."""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sae_sweeps.cli.arguments import rewrite_arguments
from sae_sweeps.cli.help import print_help, wants_help
from sae_sweeps.cli.hydra_errors import translate_error
from sae_sweeps.config.identity import to_named_config
from sae_sweeps.config.resolvers import register
from sae_sweeps.config.tasks import SWEEP_TASKS
from sae_sweeps.launchers.launch import launch
from sae_sweeps.runtime.caches import provide_caches
from sae_sweeps.runtime.console import prepare_output
from sae_sweeps.runtime.descriptors import raise_limit
from sae_sweeps.runtime.devices import set_thread_waits
from sae_sweeps.runtime.errors import ConfigError, FailedPointError, RefusedError
from sae_sweeps.runtime.held import LostSweep
from sae_sweeps.runtime.signals import Stopped
from sae_sweeps.runtime.storage import explain_storage
from sae_sweeps.sweep.objective import read_objective
from sae_sweeps.sweep.preflight import unwritable_error

register()


def run_command_line(main: Callable[[], None]) -> None:
    """Run `main`, the function that `hydra.main` decorates, on the command-line arguments of the process.

    Exits with 1 after an error in the settings, which is printed in one line without a traceback, and with 130 after
    Ctrl-C or SIGTERM.
    """
    prepare_output()
    raise_limit()
    provide_caches()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # with this, Hydra raises errors instead of printing them
    set_thread_waits()
    _refuse_other_encodings(sys.argv[1:])
    sys.argv[1:] = rewrite_arguments(sys.argv[1:])
    _compose_once(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # handle SIGTERM like Ctrl-C
    try:
        print_help(sys.argv[1:]) if wants_help(sys.argv[1:]) else main()
    except RefusedError as refused:
        _exit_with_errors(refused.lines)
    except (ConfigError, FailedPointError) as error:
        _exit_with_errors([str(error)])
    except (HydraException, OmegaConfBaseException) as error:
        _exit_with_errors([str(translate_error(error) or " ".join(str(error).split()))])
    except OSError as error:  # Hydra creates the point's folder before our checks
        if error.filename is None:
            raise
        _exit_with_errors([explain_storage(error) or str(unwritable_error(error.filename, error))])
    except LostSweep as lost:
        _exit_with_errors([str(lost)])
    except (KeyboardInterrupt, Stopped):
        print("interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(130)


def _compose_once(arguments: Sequence[str]) -> None:
    """Skip the first of two compositions by Hydra, in which it only looks for a hydra.mode: -m is the mode here."""
    if not any(argument.lstrip("+").startswith("hydra.mode=") for argument in arguments):
        setattr(Hydra, "get_mode", lambda *_, **__: None)  # noqa: B010


def _refuse_other_encodings(arguments: Sequence[str]) -> None:
    """Refuse arguments that are not UTF-8, because no file of a sweep could name them: exit with an error for each."""
    bad = [ascii(argument)[1:-1] for argument in arguments if not is_utf8(argument)]
    if bad:
        _exit_with_errors([f"{argument}: is not UTF-8. Fix: rename the file, or use a glob" for argument in bad])


def is_utf8(text: str) -> bool:
    """Return whether text holds no byte that the shell passed on undecoded."""
    return text.encode("utf-8", errors="ignore").decode() == text


def _exit_with_errors(lines: Sequence[str]) -> NoReturn:
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(1)


def run(cfg: DictConfig) -> float | list[float] | None:
    """Run a command without -m, which is a sweep of one point (one SAE), or a task on a whole sweep.

    Returns the objective of the point; None for a task, and for a point that a Slurm job has yet to train.

    Hydra calls this as the task function. With -m, Hydra calls the launcher instead, which launches all points.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    is_point = cfg.task.name not in SWEEP_TASKS
    is_new = is_point and [entry.name for entry in folder.iterdir()] == [".hydra"]  # created by Hydra just now
    launcher = instantiate(hydra.launcher)
    try:
        name, config = to_named_config(cfg, hydra.overrides.task)
        if not launch([(name, config)], launcher):
            sys.exit(1)
        return read_objective(config, folder) if is_point and launcher.waits else None
    except (RefusedError, ConfigError) as refused:
        if is_new:
            shutil.rmtree(folder)
            _remove_empty(folder.parent, Path(cfg.output_root))
        _exit_with_errors(refused.lines if isinstance(refused, RefusedError) else [str(refused)])


def _remove_empty(sweep: Path, root: Path) -> None:
    """Remove the folder of a sweep, output_root, and the parents of a relative output_root, as far as they are empty.

    Hydra has created those that did not exist.
    """
    parents = [] if root.is_absolute() else [Path.cwd() / parent for parent in root.parents][:-1]
    with contextlib.suppress(OSError):  # one of them has other content
        for folder in (sweep, sweep.parent, *parents):
            folder.rmdir()
