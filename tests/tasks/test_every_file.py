"""Every kind of file that is read back, damaged in every way: one line that names it, and never a wrong number.

A new kind of file must be added to READERS, or to NOT_READ.
"""

import fnmatch
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_sweeps.activations.cache import ActivationCache
from sae_sweeps.launchers.slurm import node
from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.launchers.slurm.submission import submit
from sae_sweeps.report import finished, studies
from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.report.points import read_curve
from sae_sweeps.runtime import provenance, records
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.storage import explain_storage
from sae_sweeps.sweep import Sweep, calibration, labels
from sae_sweeps.sweep import sweep as sweep_module
from sae_sweeps.sweep.saved_saes import SavedSAE, from_point
from sae_sweeps.sweep.scaling_laws import describe_law, group_for_laws, read_laws, write_laws
from sae_sweeps.sweep.unit_sums import read_sums
from sae_sweeps.training import checkpoints
from sae_sweeps.training.curve import CurveFile
from tests.conftest import composed
from tests.damage import DAMAGES
from tests.report.made import compared
from tests.tasks.conftest import contents
from tests.tasks.probed_files import make_probes, read_fitted, read_labelled, read_probed_sets, read_probes

TOKENS = [torch.arange(12).reshape(3, 4), torch.arange(12, 24).reshape(3, 4)]
ACTIVATIONS = [torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
NOT_READ = ["*.log", "*.csv", "*.html", "*.md", "*.png", "*.lock", "*.sh", "*.out", "*/.hydra/*", "*multirun.yaml"]
NOT_READ += ["saebench/*_eval_results.json"]  # for programs that read SAEBench's results


def read_points(folder: Path, file: Path) -> Any:
    """Return what status and report show of the points, and what a rerun resumes from."""
    loaded = load_sweep(Sweep(folder))
    return [(point.name, point.state, point.metrics, read_curve(point)) for point in loaded.points]


def read_documents(folder: Path, file: Path) -> Any:
    points = load_sweep(Sweep(folder)).points
    found = [read_sums(folder / point.name, point.results) for point in points if point.results is not None]
    return [one and [one.unit, one.fingerprint, *map(list, one.sums.values())] for one in found]


def read_submitted(folder: Path, file: Path) -> Any:
    content = Sweep(folder).read()
    return [sorted(content["points"]), content["jobs"]]


def read_studies(folder: Path, file: Path) -> Any:
    found = finished.find_finished(Sweep(folder))
    tables = []
    for one in found:
        for table in sorted(one.folder.glob("*.parquet")):
            with finished.skip_unreadable(one.folder):
                tables.append(str(one.read_table(table.stem).to_pydict()))
    return [tables, str(studies.collect_studies(found)), studies.list_evaluated(found)]


def read_sae(folder: Path, file: Path) -> Any:
    if file.parent.parent.parent.name.startswith("meta_"):
        saved = SavedSAE("meta", file.parent, from_point(Sweep(folder).points()[0]).config, setting="saved")
    else:
        saved = next(from_point(p) for p in Sweep(folder).points() if p.name == file.parent.parent.name)
        for remark in saved.list_remarks(saved.config):
            records.log.warning("%s", remark)
    sae = saved.load(torch.device("cpu"))
    return [float(sae(torch.ones(2, sae.d_in)).sum()), sae.normalization, sae.centers_input, sae.k]


def read_checkpoint(folder: Path, file: Path) -> Any:
    owner = file.parts[file.parts.index("checkpoint") - 1]
    owner = f"{file.parts[-5]}/control" if owner == "control" else owner
    state = checkpoints.load_newest(file.parent.parent, owner)
    return None if state is None else {name: tensor.tolist() for name, tensor in state.items()}


def read_curve_of_study(folder: Path, file: Path) -> Any:
    owner = file.parent.name if file.parent.name != "control" else f"{file.parent.parent.name}/control"
    curve = CurveFile(file, 50, owner)
    return curve.lines


def read_cache(folder: Path, file: Path) -> Any:
    cache = ActivationCache(folder / "cache", 1e6, {})
    return [cache.get(tokens, lambda at=at: ACTIVATIONS[at]).tolist() for at, tokens in enumerate(TOKENS)]


def read_submission(folder: Path, file: Path) -> Any:
    return (records.read_record(file, node.SHAPE) or {}).get("packs")


def read_starts(folder: Path, file: Path) -> Any:
    return [(records.read_record(file, node.STARTS) or {}).get(name) for name in node.STARTS]


def read_run_id(folder: Path, file: Path) -> Any:
    return (records.read_record(file, {"id": str}) or {}).get("id")


def read_address(folder: Path, file: Path) -> Any:
    return (records.read_record(file, {"url": str, "entity": str, "project": str}) or {}).get("url")


def read_decomposed(folder: Path, file: Path) -> Any:
    return (records.read_record(file, {"latents": [int]}) or {}).get("latents")


def read_commit(folder: Path, file: Path) -> Any:
    return (records.read_record(file, provenance.SHAPE) or {}).get("commit")


def read_label_texts(folder: Path, file: Path) -> Any:
    return labels.read_labels(folder)


def read_scaling(folder: Path, file: Path) -> Any:
    return list(read_laws(Sweep(folder), []))


def read_calibration(folder: Path, file: Path) -> Any:
    return calibration.Calibration(file.parent, is_local=True)._sums


Reader = Callable[[Path, Path], Any]
# pattern in the folder of a sweep -> function that reads such a file, given the sweep's folder and the file
READERS: dict[str, Reader] = {
    "sweep.json": read_submitted,
    "*topk-*/settings.json": read_submitted,
    "*topk-*/results.json": read_points,
    "*topk-*/state.json": read_points,
    "*topk-*/metrics.jsonl": read_points,
    "*topk-*/wandb_run.json": read_run_id,
    "*topk-*/documents.safetensors": read_documents,
    "*topk-*/sae/cfg.json": read_sae,
    "*topk-*/sae/sae_weights.safetensors": read_sae,
    "*topk-*/checkpoint/step-*/state.safetensors": read_checkpoint,
    "*topk-*/checkpoint/step-*/state.sha256": read_checkpoint,
    "[lsm]*/*/results.json": read_studies,
    "[lsm]*/*/*.parquet": read_studies,
    "probe/*-k*/results.json": read_probes,
    "probe/*-k*/sets.json": read_probed_sets,
    "probe/activations-*/*.safetensors": read_labelled,
    "probe/activations-*/*.json": read_fitted,
    "meta_*/*/decomposed.json": read_decomposed,
    "meta_*/*/metrics.jsonl": read_curve_of_study,
    "meta_*/*/control/metrics.jsonl": read_curve_of_study,
    "meta_*/*/sae/cfg.json": read_sae,
    "meta_*/*/sae/sae_weights.safetensors": read_sae,
    "meta_*/*/checkpoint/step-*/state.safetensors": read_checkpoint,
    "meta_*/*/checkpoint/step-*/state.sha256": read_checkpoint,
    "slurm/*/submission.json": read_submission,
    "slurm/*/begun-*.json": read_starts,
    "slurm/code-*/provenance.json": read_commit,
    "labels.json": read_label_texts,
    "wandb_compare.json": read_run_id,
    "wandb_workspace.json": read_address,
    "scaling.json": read_scaling,
    "cache/*/*.safetensors": read_cache,
    "../calibration.json": read_calibration,
}


@pytest.fixture
def whole(first, slurm) -> Path:
    """A sweep with a file of every kind."""
    slurm.submits()
    slurm.queues()
    sweep = Sweep(first)
    points = sweep.points()
    for number, config in ((0, composed("k=5")), (1, composed("k=6"))):
        point = type(points[0])(config, sweep.folder.absolute() / f"topk-9-k{number}")
        sweep.add({point.name: config})
        submit(sweep, [point], [], Settings())
    for code in first.glob("slurm/code-*/sae_sweeps"):
        shutil.rmtree(code)
    for number, job in enumerate(sorted((first / "slurm").glob("*/submission.json"))):
        node._record_start([points[number].folder], job.with_name("begun-0.json"))
    cache = ActivationCache(first / "cache", 1e6, {})
    for tokens_NS, acts_NSD in zip(TOKENS, ACTIVATIONS, strict=True):
        cache.get(tokens_NS, lambda acts_NSD=acts_NSD: acts_NSD)
    for place in (points[0].folder, points[1].folder):
        records.write_record(place / "wandb_run.json", {"id": place.name[-4:], "project": "p", "entity": None})
    labels.write_labels(first, {points[0].name: {3: labels.Label("a label", 0.5), 4: labels.Label("another")}})
    records.write_record(first / "wandb_compare.json", {"id": "abcd", "project": "p", "entity": None})
    records.write_record(first / "wandb_workspace.json", {"url": "u", "entity": "e", "project": "p"})
    (group,) = group_for_laws([compared(f"dict_size={size}", nmse=size**-0.5) for size in (8, 16, 32, 64)])
    write_laws(Sweep(first), [describe_law(group)], {})
    for name in ("1", "2"):
        file = first / "slurm" / f"code-{name}" / "provenance.json"
        records.write_record(file, {"commit": name, "uncommitted_changes": False})
    make_probes(first)
    sums = {part: {"work": 2.0, "seconds": 1.0} for part in calibration.PARTS}
    content = {"latest": {"here": "CPU"}, "devices": {"CPU": {"m h": sums}}}
    records.write_record(first.parent / "calibration.json", content, calibration.FILE)
    return first


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a kind, those of the studies apart from those of the points."""
    return sorted(file for file in folder.glob(pattern) if file.is_file())


def test_every_file_of_a_sweep_is_in_a_table(whole):
    known = {file for pattern in READERS for file in list_files(whole, pattern)}
    files = {file for file in whole.rglob("*") if file.is_file()} - known
    rest = {str(file.relative_to(whole)) for file in files}
    assert {name for name in rest if not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_READ)} == set()
    assert [pattern for pattern in READERS if not list_files(whole, pattern)] == []


def put_another(whole: Path, file: Path, pattern: str) -> None:
    """Replace a file by that of another point, study, job or sweep."""
    others = [
        other for other in list_files(whole, pattern) if other != file and other.read_bytes() != file.read_bytes()
    ]
    if others:
        shutil.copyfile(others[-1], file)
    else:
        other = whole.parent / "another"
        records.write_record(other / file.name, records.load_record(file, dict, ""), None)
        shutil.copyfile(other / file.name, file)


def restore(folder: Path, kept: dict[str, bytes]) -> None:
    """Make the files of a folder what they were."""
    if blocked := [folder / name for name in kept if (folder / name).is_dir()]:
        blocked[0].rmdir()
    now = contents(folder)
    for name in now.keys() - kept.keys():
        (folder / name).unlink()
    for name in (name for name in kept if kept[name] != now.get(name)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(kept[name])


def forget_warnings() -> None:
    records.warn_damaged.cache_clear()
    sweep_module._warn_once.cache_clear()


@pytest.mark.parametrize("pattern", READERS)
def test_a_damaged_file_is_named_and_gives_no_wrong_number(whole, pattern, caplog):
    caplog.set_level(logging.WARNING)
    read, file = READERS[pattern], list_files(whole, pattern)[0]
    kept = contents(whole.parent)
    intact = read(whole, file)
    assert not caplog.records, caplog.text
    for damage, change in DAMAGES.items():
        if damage == "another's":
            put_another(whole, file, pattern)
        elif damage == "a folder":
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(change(file.read_bytes()))
        caplog.clear()
        forget_warnings()
        words = ""
        try:
            found = read(whole, file)
        except (ConfigError, OSError) as error:
            found, words = None, explain_storage(error) or str(error)
            assert len(words.splitlines()) == 1
        assert all(record.exc_info is None for record in caplog.records)
        named = any(name in f"{caplog.text} {words}" for name in (str(file), file.parent.name, file.stem[:12]))
        assert found == intact or named, (damage, found, caplog.text)
        restore(whole.parent, kept)
