"""The number of files that a process may have open at a time: raised at the start, and how much of it is left."""

import resource

import psutil

MOST = 2**16  # a limit of a billion, as some systems have it, slows programs that close every possible descriptor
RESERVE = 32  # for files that are open for a moment: checkpoints, tables, pipes to other processes


def raise_limit() -> None:
    """Raise the soft limit of open files (`ulimit -Sn`) of this process and its children to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return  # macOS has a lower limit of its own; packs are split by the limit that there is


def read_limit() -> int:
    """Return how many files this process may have open at a time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else soft


def count_free() -> int:
    """Return how many more files this process can keep open, with a reserve for those that are open for a moment."""
    return max(0, read_limit() - psutil.Process().num_fds() - RESERVE)
