"""A Hydra sweeper that reads results, as an optimiser does, and a Hydra callback; both write down what they see."""

import json
import sys
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

import hydra_plugins
from sae_sweeps.cli import app
from sae_sweeps.cli.arguments import rewrite_arguments
from sae_sweeps.runtime.errors import FailedPointError
from sae_sweeps.runtime.places import PROJECT

SEEN, RESULTS = Path("seen.jsonl"), Path("results.jsonl")
BATCHES = "hydra.sweeper._target_=hydra_plugins.doubles.Batches"
CALLBACK = "+hydra.callbacks.seen._target_=tests.launchers.hydra_doubles.Seen"


def multirun(*words: str) -> None:
    """Run `python launch.py -m` in this process and folder, where a sweeper of the tests can be chosen."""
    sys.modules["hydra_plugins.doubles"] = hydra_plugins.doubles = sys.modules[__name__]
    Plugins.instance().register(Batches)
    words = [*rewrite_arguments(["-m", *words])[1:], "hydra/job_logging=none", "hydra/hydra_logging=none"]
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3", job_name="launch"):
        GlobalHydra.instance().hydra.multirun("config", app.run, words, with_log_configuration=False)


def write(file: Path, content: object) -> None:
    with file.open("a") as lines:
        print(json.dumps(content), file=lines)


def read(folder: Path, file: Path) -> list:
    return [json.loads(line) for line in (folder / file).read_text().splitlines()]


def number(config: DictConfig) -> int | None:
    """The number of a job in its command; None without -m."""
    return None if OmegaConf.is_missing(config.hydra.job, "num") else config.hydra.job.num


def describe(result: JobReturn) -> dict:
    """What a sweeper can know of a job. The value of a failed one is the text of its exception."""
    is_failed = result.status is JobStatus.FAILED
    value = result._return_value
    assert is_failed == isinstance(value, FailedPointError)
    return {
        "status": result.status.name,
        "value": str(value) if is_failed else value,
        "overrides": list(result.overrides),
        "k": result.cfg and result.cfg.k,
        "number": result.hydra_cfg and number(result.hydra_cfg),
        "folder": result.working_dir and Path(result.working_dir).name,
        "task": result.task_name,
    }


class Batches(BasicSweeper):
    """Launches the combinations of the values in batches of `max_batch_size`, and writes down the results of each."""

    __module__ = "hydra_plugins.doubles"  # Hydra takes sweepers from hydra_plugins only

    def sweep(self, arguments: list[str]) -> None:
        overrides = OverridesParser.create().parse_overrides(arguments)
        begun = 0
        for batch in self.split_arguments(overrides, self.max_batch_size):
            results = self.launcher.launch(batch, initial_job_idx=begun)
            assert len(results) == len(batch), "a result for each list of overrides"
            begun += len(batch)
            write(RESULTS, [describe(result) for result in results])


class Seen(Callback):
    """Writes down each event of a job, and whether the folder that HydraConfig has then has results."""

    def on_job_start(self, config, **_):
        self._see("start", config, [])

    def on_job_end(self, config, job_return, **_):
        self._see("end", config, [job_return.status.name, describe(job_return)["value"]])

    def on_multirun_end(self, config, **_):
        write(SEEN, ["over"])

    def _see(self, event, config, outcome):
        folder = Path(HydraConfig.get().runtime.output_dir)
        has_results = (folder / "results.json").exists()
        write(SEEN, [event, number(config), config.k, has_results, *outcome])
