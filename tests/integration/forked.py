"""Runs a sweep again and again in children of a process that has imported everything, and kills them.

`python -m tests.integration.forked WORDS` runs the sweep in the current folder. Then it reads from stdin after how many
seconds to kill a child that runs it again (a line per child), and answers with the child's exit code: -9 if killed.
With `in-background` as the first word, checkpoints are written in a thread, as on CUDA.
"""

import os
import select
import signal
import sys

from sae_sweeps.launchers.launch import launch
from sae_sweeps.launchers.local import PackLauncher
from sae_sweeps.runtime.logs import log_to_console
from sae_sweeps.training import saving
from tests.conftest import composed


def main(words: list[str]) -> None:
    if words[0] == "in-background":
        words = words[1:]
        saving.writes_in_background = lambda device: True
    named = [(sae, composed(*words, f"sae={sae}")) for sae in ("batchtopk", "topk", "jumprelu")]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    log_to_console()
    assert launch(named, PackLauncher())
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                assert launch(named, PackLauncher())
            finally:
                os._exit(0 if sys.exc_info()[0] is None else 1)
        ended, _, _ = select.select([os.pidfd_open(child)], [], [], float(line))
        if not ended:
            os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
