"""Many kills at random moments: the finished sweep has the bytes of an undisturbed one, and no file more."""

import os
import random
import shutil
import subprocess
import sys
import time

import pytest

from sae_sweeps.runtime.files import read_json
from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.training.curve import read_lines

pytestmark = pytest.mark.long

SEED = 20
LONG = 120.0  # seconds in which a command ends by itself


def content(folder):
    """Names of all files but those of speeds, which only an undisturbed run measures; SAEs, curves and metrics."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if "calibration" not in path.name}
    saes = {name: path.read_bytes() for name, path in files.items() if "/sae/" in name}
    curves = {name: read_lines(path) for name, path in files.items() if path.name == "metrics.jsonl"}
    steps = {name: [line["step"] for line in lines] for name, lines in curves.items()}
    metrics = {name: read_json(path)["metrics"] for name, path in files.items() if path.name == "results.json"}
    assert (len(saes), len(steps), len(metrics)) == (6, 3, 3)
    return set(files), saes, steps, metrics


@pytest.mark.parametrize(("saving", "least"), [([], 40), (["in-background"], 20)])
def test_a_sweep_that_is_killed_many_times_is_the_same_to_the_byte(tmp_path, tiny, saving, least):
    words = [*tiny, "training.tokens=6000", "training.checkpoint_every=5", "activations.cache=outputs/cache"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "tests.integration.forked", *saving, *words]
    outputs, printed, chance = tmp_path / "outputs", tmp_path / "output.txt", random.Random(SEED)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) as process:

        def run(seconds: float) -> bool:
            """Run the sweep in a child. Returns whether it ended before it was killed."""
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
            code = process.stdout.readline().strip()
            assert code in ("0", "-9"), f"{code}: {printed.read_text()[-3000:]}"
            return code == "0"

        assert run(LONG)
        whole = content(outputs)
        shutil.rmtree(outputs)
        began = time.monotonic()
        assert run(LONG)
        seconds = time.monotonic() - began
        assert content(outputs) == whole

        kills = 0
        while kills < least:
            shutil.rmtree(outputs)
            while not run(chance.uniform(0, 0.6 * seconds) if kills < least else LONG):
                kills += 1
            assert content(outputs) == whole
        process.stdin.close()
    assert printed.read_text().count("resuming at step") > least / 4
