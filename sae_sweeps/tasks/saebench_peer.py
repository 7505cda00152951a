"""Runs evaluations of the package sae-bench, in a Python that has it, on SAEs that are exported for it."""

import json
import logging
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from sae_sweeps.config.saebench import CORE
from sae_sweeps.formats.registry import WRITERS
from sae_sweeps.formats.saebench_results import SUFFIX, name_file, read_metrics
from sae_sweeps.runtime.devices import choose_device
from sae_sweeps.runtime.errors import ConfigError, TrainingError
from sae_sweeps.runtime.files import parse_json, write_json
from sae_sweeps.runtime.progress import PointProgress
from sae_sweeps.tasks.export import describe_saved
from sae_sweeps.tasks.study import Study

log = logging.getLogger(__name__)

DRIVER = Path(__file__).with_name("saebench_driver.py")
FORMAT = "saebench"
INSTALL = (
    "python3 -m venv ENV && ENV/bin/pip install sae-bench==0.6.0, and saebench.python=ENV/bin/python (it needs older "
    "numpy and datasets than this project)"
)
HAS_PACKAGE = "import importlib.util, sys; sys.exit(importlib.util.find_spec('sae_bench') is None)"


def require_package(python: str | None, evals: list[str]) -> None:
    """Require that a Python, by default this one, has sae-bench, if an evaluation needs it. Raises: ConfigError."""
    if needing := [name for name in evals if name != CORE]:
        chosen = python or sys.executable
        try:
            has = subprocess.run([chosen, "-c", HAS_PACKAGE], capture_output=True, check=False).returncode == 0
        except OSError as error:
            problem, fix = f"cannot be run ({error.strerror})", f"give the python of an environment: {INSTALL}"
            raise ConfigError("saebench.python", chosen, problem, fix) from None
        if not has:
            problem = f"{', '.join(needing)}: the package sae-bench computes it, which {chosen} does not have"
            raise ConfigError("saebench.evals", f"[{','.join(evals)}]", problem, INSTALL)


def run_peer(study: Study, display: PointProgress, python: str | None) -> None:
    """Run the evaluation of a study with sae-bench on its SAE, and write results.json and sae-bench's own file.

    python: one with sae-bench; None: this one

    Raises: ConfigError if the evaluation cannot run here, or SAELens has no such SAE. TrainingError if it fails.
    """
    (saved,), evaluation = study.saved.values(), study.settings["eval"]
    description, python = describe_saved(saved, FORMAT), python or sys.executable
    request = {
        "eval": evaluation,
        "model": description.model,
        "device": str(choose_device(study.config.device)),
        "dtype": study.config.model.dtype,
    }
    display.show_stage("asking sae-bench")
    versions = _check(python, request)
    sae = saved.load(torch.device("cpu"))
    writer = WRITERS[FORMAT]
    if not writer.has_architecture(sae.architecture):
        problem = f"SAELens has no SAE of the architecture {sae.architecture}"
        raise ConfigError("saebench.evals", f"[{evaluation}]", problem, "'saebench.evals=[core]'")
    with tempfile.TemporaryDirectory(prefix="saebench-") as name:
        folder = Path(name)
        exported = writer.write(folder / "sae", sae.with_unit_rows() or sae, description, {})[0].parent
        request |= {"name": saved.title, "sae": str(exported), "output": str(folder)}
        write_json(folder / "request.json", request)
        display.show_stage(f"sae-bench computes {evaluation}")
        with open(study.folder / "sae_bench.log", "w", encoding="utf-8") as output:
            done = _run(python, "run", folder / "request.json", stdout=output, stderr=subprocess.STDOUT)
        found = sorted(folder.glob(f"*{SUFFIX}"))
        if done.returncode or len(found) != 1:
            raise TrainingError(_explain(study.folder / "sae_bench.log", evaluation))
        try:
            metrics = read_metrics(found[0], evaluation)
        except ValueError as error:
            raise TrainingError(f"sae-bench's results of {evaluation} cannot be used: {error}") from None
        content = found[0].read_bytes()
    (study.folder / name_file(study.config.name, f"{saved.title}_{evaluation}")).write_bytes(content)
    study.write_results(metrics, versions=versions)
    study.track("step", lambda run: None, metrics)


def _check(python: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the versions of sae-bench and what it needs. Raises: ConfigError if the evaluation cannot run."""
    found = _ask(python, json.dumps(request))
    if "problem" in found:
        raise ConfigError("saebench.evals", f"[{request['eval']}]", str(found["problem"]), str(found.get("fix")))
    versions: dict[str, Any] = found["versions"]
    return versions


@lru_cache  # the imports take half a minute
def _ask(python: str, request: str) -> dict[str, Any]:
    """Return what the driver answers to a request of JSON: the versions, or a problem and its fix."""
    with tempfile.TemporaryDirectory(prefix="saebench-") as name:
        file = Path(name) / "request.json"
        file.write_text(request, encoding="utf-8")
        done = _run(python, "check", file, capture_output=True, text=True)
    try:
        answer = parse_json(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        answer = None
    if isinstance(answer, dict) and ("problem" in answer or isinstance(answer.get("versions"), dict)):
        return answer
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return {"problem": f"sae-bench cannot be used ({last})", "fix": INSTALL}


def _run(python: str, word: str, file: Path, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run the driver in the folder of its request, where sae-bench keeps what it computes on the way."""
    command = [str(Path(python).absolute()), str(DRIVER), word, str(file)]
    return subprocess.run(command, cwd=file.parent, stdin=subprocess.DEVNULL, check=False, **options)


def _explain(file: Path, evaluation: str) -> str:
    """Return what the output of sae-bench ends with, in one line."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "it printed nothing"
    return f"sae-bench gave no results of {evaluation}: {last}. The output is in {file.name}"
