"""Synthetic reports of large sweeps: points and studies without training."""

import gzip
import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from embedded.train import TEXT
from sae_sweeps.config import Config
from sae_sweeps.formats import saelens
from sae_sweeps.formats.layout import SAE_FOLDER
from sae_sweeps.report.loaded import load_sweep
from sae_sweeps.runtime.files import write_json
from sae_sweeps.runtime.provenance import provenance
from sae_sweeps.saes import TopKSAE
from sae_sweeps.studies import decomposition_tables, latent_tables
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks.report import write_page
from tests.conftest import composed

EXPLORER_MIB = 10  # as by default


def write_report_of_points(folder: Path, points: int = 200, lines: int = 2000) -> Path:
    """Write the report on points of three architectures, each with a long training curve."""
    sweep = Sweep(folder)
    templates = {name: composed(f"sae={name}", "tracking=off") for name in ("batchtopk", "topk", "jumprelu")}
    every = itertools.product(templates, (1536, 3072, 6144, 12288), (8, 16, 32, 64, 96, 128), (0, 1, 2))
    configs = {
        f"{architecture}-{size}-k{k}-seed{seed}-{number:08x}": replace(
            templates[architecture], dict_size=size, k=k, seed=seed
        )
        for number, (architecture, size, k, seed) in enumerate(itertools.islice(every, points))
    }
    sweep.add(configs)
    random = np.random.default_rng(0)
    for name, config in configs.items():
        error = 0.4 / config.k**0.5 * (3072 / config.dict_size) ** 0.3 * random.uniform(0.98, 1.02)
        _write_point(folder / name, config, error)
        _write_curve(folder / name / "metrics.jsonl", config, error, lines, random)
    return write_page([load_sweep(sweep)], EXPLORER_MIB)


def write_report_of_latents(folder: Path, latents: int = 24576, d_in: int = 64) -> Path:
    """Write the report on one large SAE with examples of all latents, and a meta-SAE with a quarter as many."""
    sweep = Sweep(folder)
    config = composed("sae=topk", f"dict_size={latents}", "tracking=off")
    name = f"topk-{latents}-k32-seed0-00000000"
    sweep.add({name: config})
    _write_point(folder / name, config, 0.05)
    sae = TopKSAE(d_in=d_in, dict_size=latents, normalize_input=True, k=config.k)
    torch.nn.init.normal_(sae.W_dec, std=d_in**-0.5)
    saelens.write(folder / name / SAE_FOLDER, sae.for_inference(), {})

    words, random = _Words(), np.random.default_rng(0)
    columns = words.table(latents, random)
    sae_entry = {"sae": {"point": name, "architecture": "topk", "dict_size": latents, "k": config.k}}
    latents_study = {**sae_entry, "settings": asdict(config.latents)}
    _write_study(folder / "latents" / name, latents_study, config, {"latents": latents})
    pq.write_table(pa.table(columns, schema=latent_tables.SCHEMA), folder / "latents" / name / "latents.parquet")

    meta, users = latents // 4, [[] for _ in range(latents // 4)]
    parts = [
        [{"meta_latent": int(at), "weight": float(weight)} for at, weight in zip(row, weights, strict=True)]
        for row, weights in zip(random.integers(meta, size=(latents, 4)), random.random((latents, 4)), strict=True)
    ]
    for latent, row in enumerate(parts):
        for part in row:
            users[part["meta_latent"]].append({"latent": latent, "weight": part["weight"]})
    place = folder / "meta_sae" / f"topk-{latents}-meta-k4-00000000"
    numbers = {
        "latents": latents,
        "meta_latents": meta,
        "l0": 4.0,
        "explained_variance": 0.55,
        "explained_variance_shuffled": 0.5,
    }
    study = {**sae_entry, "settings": asdict(config.meta)}
    _write_study(place, study, config, numbers, smaller={}, meta_latents_per_latent=[0, 0, 0, 0, latents])
    decomposed = {**columns, "explained": random.random(latents), "meta_latents": parts}
    pq.write_table(pa.table(decomposed, schema=decomposition_tables.LATENTS), place / "latents.parquet")
    used = {"used_by": [len(row) for row in users], "latents": [row[:10] for row in users], "matches": [[]] * meta}
    metas = pa.table({**words.table(meta, random), **used}, schema=decomposition_tables.META_LATENTS)
    pq.write_table(metas, place / "meta_latents.parquet")
    return write_page([load_sweep(sweep)], EXPLORER_MIB)


class _Words:
    """Writes latents tables with examples from the embedded text: each latent is active on one of its words."""

    def __init__(self) -> None:
        with gzip.open(TEXT, "rt") as lines:
            self.text = [f" {word}" for line in lines for word in json.loads(line)["text"].split()]
        self.places: dict[str, list[int]] = {}
        for place, word in enumerate(self.text):
            self.places.setdefault(word, []).append(place)

    def table(self, latents: int, random: np.random.Generator) -> dict[str, Any]:
        """Return the columns of latent_tables.SCHEMA."""
        active = np.sort(random.random((latents, 10)))[:, ::-1]
        logits = np.sort(random.random((latents, 10)))[:, ::-1]
        chosen = random.integers(len(self.text), size=latents)
        raised = random.integers(len(self.text), size=(latents, 10))
        examples, promoted = [], []
        for latent in range(latents):
            there = self.places[self.text[chosen[latent]]]
            some = sorted({there[at] for at in random.integers(len(there), size=10)})
            values = zip(some, active[latent, : len(some)], strict=True)
            examples.append([self._example(place, float(value)) for place, value in values])
            tokens = zip(raised[latent], logits[latent], strict=True)
            promoted.append([{"token": self.text[at], "logit": float(value)} for at, value in tokens])
        return {
            "latent": range(latents),
            "frequency": random.random(latents) / 100,
            "mean_activation": active.mean(1),
            "max_activation": active[:, 0],
            "examples": examples,
            "promoted": promoted,
            "suppressed": [[{**one, "logit": -one["logit"]} for one in row] for row in promoted[::-1]],
            "histogram": [
                {"width": 0.03125, "counts": counts}
                for counts in random.poisson(40 * np.exp(-np.arange(24) / 5), (latents, 24)).tolist()
            ],
        }

    def _example(self, place: int, activation: float) -> dict[str, Any]:
        before, after = self.text[max(0, place - 10) : place], self.text[place + 1 : place + 6]
        ends = np.cumsum([len(word) for word in before[:-1]]).tolist() if place % 2 else []
        around = [*itertools.pairwise(ends)][-(place % 4) :]
        return {
            "active": [{"start": start, "stop": stop, "activation": activation / 3} for start, stop in around],
            "activation": activation,
            "before": "".join(before),
            "token": self.text[place],
            "after": "".join(after),
            "place": place,
        }


def _write_point(folder: Path, config: Config, error: float) -> None:
    point = {"architecture": config.sae.architecture, "dict_size": config.dict_size, "k": config.k, "seed": config.seed}
    metrics = {
        "nmse": error,
        "fvu": 2.1 * error,
        "l0": config.k * (1 + error / 10),
        "dead_fraction": error / 3,
        "ce_degradation": 2.3 * error,
        "ce_recovered_zero": 1 - error / 2,
        "ce_recovered_mean": 1 - error,
    }
    training = {"tokens": 2_048_000, "steps": 2000, "seconds": 60 + 1e3 * error, "tokens_per_second": 3e4 - 1e4 * error}
    results = {
        "point": point,
        "metrics": metrics,
        "training": training,
        "config": asdict(config),
        "provenance": provenance(),
    }
    write_json(folder / "results.json", results)


def _write_curve(file: Path, config: Config, error: float, lines: int, random: np.random.Generator) -> None:
    steps = np.arange(1, lines + 1)
    mse = error * (1 + 3 / np.sqrt(steps)) * random.normal(1, 0.02, lines)
    more = np.stack([mse / 40, config.k * random.normal(1, 0.01, lines), random.random(lines)]).T.tolist()
    file.write_text(
        "".join(
            f'{{"step": {step}, "tokens": {1024 * step}, "loss": {value}, "mse": {value}, "aux_loss": {aux},'
            f' "l0": {l0}, "dead_fraction": {dead}, "lr": 0.004, "threshold_mean": {dead}, "seconds": 0.03}}\n'
            for step, value, (aux, l0, dead) in zip(steps.tolist(), mse.tolist(), more, strict=True)
        )
    )


def _write_study(folder: Path, study: dict[str, Any], config: Config, metrics: dict[str, float], **more: Any) -> None:
    study = {"task": folder.parent.name, "name": folder.name, **study}
    content = {"study": study, "metrics": metrics, "seconds": 1.0, **more, "config": asdict(config)}
    write_json(folder / "results.json", content)
