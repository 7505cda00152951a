"""Every command in the documents ends well, in the documents' order, but those marked as needing what a test lacks.

Trainings and studies are shortened by settings that are added to the commands, and placeholders such as FOLDER are
replaced. A document begins with the sweeps of the README.
"""

import gzip
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sae_sweeps.runtime.places import PROJECT
from tests.conftest import launch
from tests.documents import COMMANDS

pytestmark = pytest.mark.long

NEEDS = {"a hub", "a cluster", "a W&B account", "a GPU", "two hours", "the data sets of sae-probes", None}
SHORT = [
    "training.tokens=8192",
    "training.batch_size=128",
    "training.warmup_steps=8",
    "evaluation.tokens=1024",
    "stitch.tokens=1024",
    "stitch.ce_tokens=512",
    "meta.steps=20",
    "latents.tokens=2048",
    "saebench.reconstruction_batches=1",
    "saebench.sparsity_batches=2",
]
UNTRAINED = {
    "task=status",
    "task=plan",
    "task=report",
    "task=scaling",
    "task=remove",
    "task=export",
    "task=publish",
    "--help",
}
FIRST = [
    ["-m", "sae=batchtopk,topk,jumprelu", "dict_size=3072,6144"],
    ["-m", "sae=topk,batchtopk", "k=16,32,64", "name=ks"],
]


def run(words: list[str], folder: Path) -> str:
    """Run a command, shortened, and return what it prints."""
    if not UNTRAINED.intersection(words):
        words = [*words, *(added for added in SHORT if not any(word.startswith(added.split("=")[0]) for word in words))]
    done = launch(*words, cwd=folder, timeout=600)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def first_sweeps(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    for words in FIRST:
        run(words, folder)
    return folder


def fill_in(words: tuple[str, ...], folder: Path) -> list[str]:
    """Replace the placeholders of a command."""
    points = sorted(path.parent.relative_to(folder) for path in folder.glob("outputs/sweep/*/sae"))
    smaller, larger = (next(path for path in points if path.name.startswith(f"topk-{size}-")) for size in (3072, 6144))
    fixed = {
        "outputs/SWEEP/POINT": str(larger),
        "outputs/a/POINT": str(smaller),
        "outputs/b/POINT": str(larger),
        "OWNER/NAME": "somebody/saes",
        "FOLDER_OR_HUB_NAME": str(PROJECT / "embedded" / "model"),
        "blocks.12.": "blocks.3.",
    }
    others = itertools.cycle(points)
    filled = []
    for word in words:
        for placeholder, value in fixed.items():
            word = word.replace(placeholder, value)
        filled.append(re.sub(r"\bFOLDER\b", lambda _: f"{next(others)}/sae", word))
    return [word for word in filled if word != "model=gpt2-small"]  # the embedded model stands in for it


def prepare(folder: Path, document: str) -> None:
    """Write the files that a document says its reader has."""
    (folder / "texts").mkdir()
    with gzip.open(PROJECT / "embedded" / "text" / "state_of_the_union.jsonl.gz", "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            (folder / "texts" / f"{number}.txt").write_text(json.loads(line)["text"][:20_000], encoding="utf-8")
    (choice := folder / "mine" / "model" / "mymodel.yaml").parent.mkdir(parents=True)
    (yaml,) = re.findall(r"^```yaml\n(.*?)^```", (PROJECT / "docs/tutorials/your-model.md").read_text(), re.M | re.S)
    yaml = yaml.replace("/models/mymodel", str(PROJECT / "embedded" / "model")).replace("blocks.12.", "blocks.3.")
    choice.write_text(yaml)
    (labels,) = re.findall(r"^```json\n(.*?)^```", (PROJECT / "docs/neuronpedia.md").read_text(), re.M | re.S)
    (folder / "labels.jsonl").write_text(labels)
    if "fetch_model" in (PROJECT / document).read_text():
        subprocess.run(
            [sys.executable, "-m", "sae_sweeps.cli.fetch_model", "smollm2-135m"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            check=True,
        )


def test_the_marks_are_the_known_ones():
    assert {command.needs for command in COMMANDS} <= NEEDS


@pytest.mark.parametrize("document", sorted({command.document for command in COMMANDS}))
def test_the_commands_of_a_document_end_well(document, first_sweeps, tmp_path):
    folder = tmp_path / "reader"
    shutil.copytree(first_sweeps, folder)
    prepare(folder, document)
    for command in COMMANDS:
        if command.document == document and not command.needs:
            run(fill_in(command.words, folder), folder)
