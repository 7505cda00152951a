"""The command that starts a private Slurm cluster and runs another command in it."""

import argparse
import contextlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.slurm_cluster.cluster import Cluster, missing


def run_and_wait(cluster: Cluster, command: list[str]) -> int:
    """Run a command in the cluster, wait until the queue is empty, and return the command's exit status."""
    with subprocess.Popen(command, env=cluster.environment) as process:
        try:
            status = process.wait()
        except BaseException:  # end the command with this process
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()
            raise
    shown = time.monotonic()
    while jobs := cluster.queue(finished=False):
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            states = Counter(f"{job['State']} ({job['Reason']})".removesuffix(" (None)") for job in jobs)
            print("queue:", ", ".join(f"{number} {state}" for state, number in states.items()), file=sys.stderr)
        time.sleep(1)
    return status if status >= 0 else 128 - status


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.slurm_cluster",
        usage="%(prog)s [options] [COMMAND ...]",
        description="Start a private Slurm cluster, run a command in it, wait until the queue is empty, and stop it. "
        "The exit status is the command's. Without a command, the cluster runs until Ctrl-C.",
    )
    parser.add_argument("--folder", type=Path, help="a new folder for Slurm's files (default: a temporary one)")
    parser.add_argument("--nodes", type=int, default=2, help="number of nodes, each with one fake GPU (default: 2)")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs per node (default: 2)")
    parser.add_argument(
        "--requeue-seconds", type=int, default=10, help="how long a requeued job waits (default: 10, at least 5)"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="and its options")
    args = parser.parse_args()
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if command and shutil.which(command[0]) is None:
        parser.error(f"no such command: {command[0]}")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="slurm-") as temporary:
        folder = args.folder or Path(temporary)
        try:
            with Cluster(folder, args.nodes, args.cpus, args.requeue_seconds) as cluster:
                if command:
                    return run_and_wait(cluster, command)
                print(f"export SLURM_CONF={shlex.quote(cluster.environment['SLURM_CONF'])}", flush=True)
                signal.pause()
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        except (OSError, RuntimeError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
