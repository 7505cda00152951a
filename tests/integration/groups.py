"""Which slow tests share a worker of pytest-xdist, with `--dist loadgroup`.

They are those of a file, and all of report_page/, whose fixtures take minutes. Tests with a Slurm cluster mostly wait,
so each may have a worker, and a cluster, of its own. Marks of xdist 3.8 for groups have no effect with pytest 9.2.
"""

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling


def find_group(test: str) -> str:
    """Return the group of a test, given its id: FILE::NAME."""
    file = PurePosixPath(test.partition("::")[0])
    if file.parent.name == "report_page":
        return str(file.parent)
    return test if file.name == "test_slurm.py" else str(file)


class GroupScheduling(LoadScopeScheduling):
    """Gives a worker all tests of a group."""

    def _split_scope(self, nodeid: str) -> str:
        return find_group(nodeid)
