"""Commands that a test stops, and the points, weights and checkpoints of a sweep."""

import json
import signal

from sae_sweeps.sweep import point_state

# the least that results.json of a point that is done must have
DONE_RESULTS = (
    '{"point": {}, "metrics": {"nmse": 0.5, "l0": 2.0}, "config": {}, "provenance": {}, '
    '"training": {"tokens": 8, "steps": 1, "tokens_per_second": null}}'
)


def rewrite_results(folder, change=lambda results: None):
    """Change the results of a point or study, or the files beside them, as if they had been so from the start."""
    results = json.loads((folder / "results.json").read_text())
    change(results)
    point_state.write_results(folder, results)


def point_folders(sweep):
    return sorted(entry for entry in sweep.iterdir() if (entry / "results.json").exists())


def weights(sweep):
    return {point.name: (point / "sae" / "sae_weights.safetensors").read_bytes() for point in point_folders(sweep)}


def checkpoints_in(sweep):
    return {path.name for path in sweep.glob("*/checkpoint/step-*")}


def kill(process, sweep):
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(sweep.glob("*/results.json")), "the command ended before it was killed"
