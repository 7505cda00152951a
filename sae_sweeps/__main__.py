"""Runs the command: `python -m sae_sweeps --help`."""

from sae_sweeps.cli.main import main

main()
