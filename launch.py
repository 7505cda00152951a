"""The command-line entry point: `python launch.py --help`."""

import hydra
from omegaconf import DictConfig

from sae_sweeps.cli import app


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    app.run(cfg)


if __name__ == "__main__":
    app.run_command_line(main)
