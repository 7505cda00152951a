"""The command line: what Hydra is given, what it calls, and how errors and Ctrl-C end."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sae_sweeps.cli.arguments import rewrite
from sae_sweeps.cli.hydra_errors import as_config_error
from sae_sweeps.config.identity import to_named_config
from sae_sweeps.config.resolvers import register
from sae_sweeps.config.tasks import SWEEP_TASKS
from sae_sweeps.launchers.launch import launch
from sae_sweeps.runtime.errors import RefusedError
from sae_sweeps.sweep.preflight import unwritable

register()


def command_line(main: Callable[[], None]) -> None:
    """Run Hydra's main function. A user's mistake is printed as one line, without a traceback, and exits with 1."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # have Hydra raise its errors, to be printed here
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or processes that share cores slow each other several times
    sys.argv[1:] = rewrite(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # handled like Ctrl-C
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
        print("interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(130)


def _refuse(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(1)


def run(cfg: DictConfig) -> None:
    """Run a command without -m, a sweep of one point: Hydra's task function. Launchers call `launch` themselves."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    is_point = cfg.task.name not in SWEEP_TASKS
    created = is_point and [entry.name for entry in folder.iterdir()] == [".hydra"]  # by Hydra, before any check
    try:
        launch([to_named_config(cfg, hydra.overrides.task)], instantiate(hydra.launcher))
    except RefusedError as refused:
        if created:
            shutil.rmtree(folder)
        _refuse(refused.lines)
