"""The examples are kept small, and the Slurm example's words, also those in comments, are valid."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from sae_sweeps.runtime.places import PROJECT

EXAMPLES = PROJECT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SCRIPT = EXAMPLES / "slurm" / "sweep.sh"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_names_no_file_of_the_checkout(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    for cell in code:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        assert not re.search(r"\.\./|embedded/|conf/|sys\.path", "".join(cell["source"]))
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_the_notebooks_are_there_and_listed():
    listed = re.findall(r"\((\w+\.ipynb)\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == [notebook.name for notebook in NOTEBOOKS]
    assert len(NOTEBOOKS) == 3


def test_the_slurm_example_can_be_planned_with_all_its_words(tmp_path):
    in_comments = re.findall(r"^  # (\S*[\w'\"]=\S.*|\"hydra.*)$", SCRIPT.read_text(), flags=re.MULTILINE)
    words = [word for line in in_comments for word in shlex.split(line) if not word.startswith("output_root=")]
    assert len(words) == 5
    command = [SCRIPT, *words, f"output_root={tmp_path}", "task=plan", "k=16"]
    environment = {**os.environ, "PYTHON": sys.executable}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert re.findall(r"^(points|packs) +(.*)", ran.stdout, flags=re.MULTILINE) == [
        ("points", "6"),
        ("packs", "1 (6 points)"),
    ]
