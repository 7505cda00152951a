"""The command-line entry point: `python launch.py --help`. An installed package has it as `sae-sweeps`."""

from sae_sweeps.cli.main import main

if __name__ == "__main__":
    main()
