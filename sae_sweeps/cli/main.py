"""The command: `sae-sweeps`, `python -m sae_sweeps`, and `python launch.py` in a checkout, which are the same."""

import hydra
from omegaconf import DictConfig

from sae_sweeps.cli import app
from sae_sweeps.config.commands import record_program
from sae_sweeps.runtime.places import PROJECT


@hydra.main(version_base="1.3", config_path=str(PROJECT / "conf"), config_name="config")
def _compose_and_run(cfg: DictConfig) -> float | list[float] | None:
    return app.run(cfg)


def main() -> None:
    """Run the command with the arguments of this process; `--help` lists them."""
    record_program()
    app.run_command_line(_compose_and_run)
