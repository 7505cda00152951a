"""From a composed configuration to a task: check everything, run, report."""

import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sae_sweeps.config.identity import named_config
from sae_sweeps.config.resolvers import register
from sae_sweeps.config.tasks import SWEEP_TASKS
from sae_sweeps.errors import RefusedError
from sae_sweeps.hydra_errors import as_config_error
from sae_sweeps.launchers.launch import launch
from sae_sweeps.sweep.preflight import unwritable

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)


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
        hydra = HydraConfig.get()
        launch([named_config(cfg, hydra.overrides.task)], instantiate(hydra.launcher))
    except RefusedError as refused:
        if made:
            shutil.rmtree(folder)
        _refuse(refused.lines)
