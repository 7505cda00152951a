"""A private Slurm cluster on this machine to test sweeps on. Its nodes are daemons that write into one folder only.

It needs root and Debian's packages slurm-wlm and munge, but none of their services and no configuration in /etc.
Any number of clusters can run at the same time. `python -m tests.slurm_cluster --help` explains how to use one.
"""

import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scontrol", "srun")
START_SECONDS = 30
UP = {"idle", "mixed", "allocated", "completing"}
COLUMNS = {
    "JobArrayID": 24,
    "Name": 64,
    "State": 20,
    "RestartCnt": 12,
    "NodeList": 24,
    "Reason": 64,
}  # and widths
GPUS = ("/dev/null", "/dev/zero")  # devices that the nodes offer as GPUs
PORTS = range(10000, 30000)  # below the range that Linux uses for outgoing connections
PLAIN_FOLDER = r"[A-Za-z0-9_./-]{1,60}"  # fits into slurm.conf, and into the 107 bytes of a Unix socket's path
OUTER_JOB = ("SLURM_", "SBATCH_", "SQUEUE_")  # prefixes of the variables of a job that this process may run in

SLURM_CONF = """\
ClusterName=private
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock,cred_expire={requeue_seconds}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/%n.log
PlugStackConfig={root}/plugstack.conf
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
MpiDefault=none
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName=DEFAULT CPUs={cpus} RealMemory=10000 Gres=gpu:1
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """One line on why no cluster can be started here, or None."""
    if sys.platform != "linux":
        return "a private Slurm cluster needs Linux"
    if os.geteuid() != 0:
        return "a private Slurm cluster needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)} (apt-get install slurm-wlm munge)" if absent else None


class Cluster:
    """Nodes n1, n2, ... in the partition `gpu`, each with `cpus` CPUs and one fake GPU, while the context lasts.

    A requeued job starts again after `requeue_seconds`, but at least 5, and one more second.
    """

    def __init__(self, folder: Path, nodes: int = 2, cpus: int = 2, requeue_seconds: int = 10) -> None:
        self.folder = folder.resolve()
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus = cpus
        self.requeue_seconds = max(requeue_seconds, 5)  # Slurm replaces less by its default, 120
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(OUTER_JOB)}
        self.environment["SLURM_CONF"] = str(self.folder / "slurm.conf")
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.link: Path | None = None  # to the folder, if Slurm does not accept its name

    def __enter__(self) -> "Cluster":
        if (self.folder / "slurm.conf").exists():
            raise FileExistsError(f"{self.folder} has a slurm.conf already: a cluster needs a folder of its own")
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_all(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        root = self.folder
        if not re.fullmatch(PLAIN_FOLDER, str(root)):
            root = self.link = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")) / "cluster"
            root.symlink_to(self.folder)
        ports = free_ports(1 + len(self.nodes))
        conf = SLURM_CONF.format(root=root, ports=ports, cpus=self.cpus, requeue_seconds=self.requeue_seconds)
        for node, port in zip(self.nodes, ports[1:], strict=True):
            conf += f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port}\n"
        (self.folder / "slurm.conf").write_text(conf)
        gpus = [f"NodeName={node} Name=gpu File={GPUS[at % len(GPUS)]}\n" for at, node in enumerate(self.nodes)]
        (self.folder / "gres.conf").write_text("".join(gpus))
        (self.folder / "plugstack.conf").touch()
        (self.folder / "state").mkdir()
        (self.folder / "munge.key").touch(mode=0o600)
        (self.folder / "munge.key").write_bytes(os.urandom(64))
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "seed-file": "seed"}
        self._start("munged", "--foreground", "--force", *(f"--{key}={root}/{file}" for key, file in files.items()))
        self._wait((self.folder / "munge.sock").exists)
        self._start("slurmctld", "-D")
        for node in self.nodes:
            self.start_slurmd(node)
        self.wait_until_up()

    def _start(self, program: str, *options: str, name: str = "") -> None:
        """Start a daemon in the foreground, in a session of its own so that Ctrl-C does not reach it."""
        with open(self.folder / f"{name or program}.err", "ab") as log:
            self.daemons[name or program] = subprocess.Popen(
                [program, *options],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not condition():
            ended = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if ended or time.monotonic() > end:
                why = f"{', '.join(ended)} ended" if ended else f"not ready in {seconds:g} s"
                raise RuntimeError(f"the Slurm cluster in {self.folder}: {why}\n{self.logs()}")
            time.sleep(0.1)

    def logs(self, lines: int = 15) -> str:
        """The last lines of each daemon's log."""
        logs = {file.stem: file.read_text(errors="replace").splitlines() for file in sorted(self.folder.glob("*.err"))}
        return "\n".join(f"{name}: {line}" for name in logs for line in logs[name][-lines:])

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the cluster's environment and return its output."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise RuntimeError(f"{shlex.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def queue(self, finished: bool = True) -> list[dict[str, str]]:
        """The jobs that squeue lists, with the columns in COLUMNS, one entry per array task."""
        columns = ",".join(f"{name}:{width}" for name, width in COLUMNS.items())
        which = ["--states=all"] if finished else []
        jobs = []
        for line in self.run("squeue", "--noheader", "--array", *which, f"--Format={columns}").splitlines():
            job = {}
            for name, width in COLUMNS.items():
                job[name], line = line[:width].strip(), line[width:]
            jobs.append(job)
        return jobs

    def node_states(self) -> dict[str, str]:
        """The state of each node: idle, mixed, allocated, down, ..., with a * if its daemon does not answer."""
        lines = self.run("sinfo", "--noheader", "-N", "-o", "%N %T", check=False).splitlines()
        return dict(line.split() for line in lines)

    def wait_until_up(self, seconds: float = START_SECONDS) -> None:
        """Wait until all nodes are idle or run jobs."""
        self._wait(lambda: sum(state in UP for state in self.node_states().values()) == len(self.nodes), seconds)

    def start_slurmd(self, node: str) -> None:
        """Start a node's daemon without waiting for it."""
        self._start("slurmd", "-D", "-N", node, name=node)

    def kill_slurmd(self, node: str) -> None:
        """Kill only a node's daemon. Its jobs continue, and Slurm takes minutes to notice."""
        daemon = self.daemons.pop(node)
        daemon.kill()
        daemon.wait()

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and all its jobs, like a power cut. Slurm takes minutes to notice."""
        self.kill_slurmd(node)
        self._kill_jobs([node])

    def set_down(self, node: str) -> None:
        """Set a node down, so that Slurm requeues its jobs. It is up again when its daemon starts."""
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")

    def stop(self) -> None:
        """Kill the daemons, all jobs, and Slurm commands that still wait for an answer."""
        for daemon in self.daemons.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        self.daemons.clear()
        self._kill_jobs(self.nodes, PROGRAMS)
        if self.link:
            shutil.rmtree(self.link.parent)
            self.link = None

    def _kill_jobs(self, nodes: list[str], programs: tuple[str, ...] = ()) -> None:
        end = time.monotonic() + 10
        while processes := self._processes(nodes, programs):
            if time.monotonic() > end:
                raise RuntimeError(f"the Slurm cluster in {self.folder}: cannot kill {processes}")
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.05)

    def _processes(self, nodes: list[str], programs: tuple[str, ...]) -> list[psutil.Process]:
        """Every slurmstepd of the nodes with its children, orphans of a killed slurmstepd, and the programs."""
        logs = {str(self.folder / f"{node}.log") for node in nodes}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # the process has just ended
                if process.name() == "slurmstepd":  # its title has overwritten its environment
                    ours = any(file.path in logs for file in process.open_files())
                else:
                    variables = process.environ()
                    ours = variables.get("SLURM_CONF") == self.environment["SLURM_CONF"] and (
                        variables.get("SLURMD_NODENAME") in nodes or process.name() in programs
                    )
                if ours:
                    found += [process, *process.children(recursive=True)]
        return found


def free_ports(count: int) -> list[int]:
    """Ports that no process listens on."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as attempt, contextlib.suppress(OSError):
            attempt.bind(("", port))
            ports.append(port)
        if len(ports) == count:
            break
    return ports
