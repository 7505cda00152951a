"""Task `export` with format=neuronpedia: what task=latents found about SAEs, in Neuronpedia's import layout."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sae_sweeps.activations.hooks import split_hook
from sae_sweeps.activations.model_info import read_model_info, shared_name
from sae_sweeps.config import Config, DatasetConfig
from sae_sweeps.config.commands import format_command, format_setting
from sae_sweeps.config.neuronpedia import FORMAT
from sae_sweeps.formats.neuronpedia.names import describe_site, name_model, slugify
from sae_sweeps.formats.neuronpedia.reading import check_source
from sae_sweeps.formats.neuronpedia.records import Row, Source, shorten
from sae_sweeps.formats.neuronpedia.schema import BATCH
from sae_sweeps.formats.neuronpedia.writing import write_source
from sae_sweeps.report.finished import FinishedStudy, find_finished
from sae_sweeps.runtime import signals
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import ConfigError, NotRunError, describe_error
from sae_sweeps.runtime.files import iterate_table, write_folder, write_text
from sae_sweeps.runtime.leftovers import remove_leftovers
from sae_sweeps.runtime.paths import place, require_no_links
from sae_sweeps.runtime.progress import PointProgress, SweepProgress
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.labels import Label, read_labels
from sae_sweeps.sweep.result_files import find_changed
from sae_sweeps.sweep.saved_saes import SavedSAE
from sae_sweeps.tasks.labels import keep_labels
from sae_sweeps.tasks.model_card import WRITTEN
from sae_sweeps.tasks.neuronpedia_card import build_readme

log = logging.getLogger(__name__)

CARD = "README.md"
TABLE = "latents"
Vectors = Callable[[Sequence[int]], Mapping[int, Sequence[float]]]


def export(sweep: Sweep, config: Config, saved: Sequence[SavedSAE], names: Sequence[str], root: Path) -> list[str]:
    """Write a folder MODEL/SOURCE per SAE in `root`, and print the paths. Returns one sentence per SAE that failed.

    names: a distinct name of each SAE
    Raises: NotRunError if an SAE has no results of task=latents. ConfigError for a line of `latents.labels` that is no
    label, for a latent that an SAE does not have, and for two SAEs that would get one id. Nothing is written then.
    """
    keep_labels([sweep], config, saved)
    studies = _find_studies(sweep, config, saved)
    sources = [_describe(*each, config) for each in zip(saved, names, studies, strict=True)]
    _check_sources(saved, sources, config)
    labels, failures = read_labels(sweep.folder), []
    remove_leftovers(root)
    with SweepProgress(len(saved), "SAEs").live() as display:
        for one, source, study in zip(saved, sources, studies, strict=True):
            line, failure = display.add_point(source.id), None
            try:
                folder = _write(one, source, study, labels.get(one.name, {}), config, root, line)
                console.print(f"written: {folder}", markup=False, soft_wrap=True)
            except (ConfigError, OSError, ValueError, pa.ArrowException) as error:
                failure = f"{one.name}: {describe_error(error)}"
                failures.append(failure)
            finally:
                line.close()
            display.count_finished(failed=failure is not None)
    return failures


def _find_studies(sweep: Sweep, config: Config, saved: Sequence[SavedSAE]) -> list[FinishedStudy]:
    """Return the study of task=latents of each SAE: if there are several, the one that read the most tokens.

    Raises: NotRunError that names the command to run, if an SAE has none with tables that are as it wrote them.
    """
    finished = [study for study in find_finished(sweep) if study.task == "latents" and _is_intact(study)]
    found: list[FinishedStudy] = []
    missing = []
    for one in saved:
        candidates = [study for study in finished if study.point("sae") == one.name]
        candidates = [study for study in candidates if not one.find_changed(study.results["study"]["sae"])]
        if candidates:
            found.append(max(candidates, key=lambda study: study.settings["tokens"]))
        else:
            missing.append(one.title)
    command = format_command("latents", sweep.name, sweep.folder.parent)
    if config.saved is not None:
        command += f" {format_setting('sae', config.saved)}"
    if missing:
        listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise NotRunError(f"format={FORMAT} needs the results of task=latents of {listed}. Run first: {command}")
    for study in found:
        if not _has_tokens(study.folder / f"{TABLE}.parquet"):
            problem = f"{study.folder} is of an earlier version, and has no tokens that can be exported"
            raise NotRunError(f"{problem}. Remove this folder, and run: {command}")
    return found


def _is_intact(study: FinishedStudy) -> bool:
    file = study.folder / f"{TABLE}.parquet"
    return file.is_file() and not find_changed(study.folder, study.results, [file.name])


def _has_tokens(file: Path) -> bool:
    """Return whether a table says where the tokens of its examples begin, and how its logits are distributed."""
    schema = pq.read_schema(file)
    examples = schema.field("examples").type.value_type
    return "logits" in schema.names and "cuts" in [examples.field(at).name for at in range(examples.num_fields)]


def _describe(one: SavedSAE, name: str, study: FinishedStudy, config: Config) -> Source:
    """Return what Neuronpedia shows about an SAE: from the settings of the command, and of the study of its latents."""
    chosen, used = config.neuronpedia, study.results["config"]
    dataset = DatasetConfig(**used["dataset"])
    model, (layer, hook_type) = shared_name(used["model"]["name"]), _split(used["model"]["hook"])
    short, site = describe_site(hook_type)
    release = chosen.release or slugify(study.sweep.name)
    source_set = chosen.source_set or f"{release}-{short}"
    title = chosen.title or f"SAEs of the sweep {study.sweep.name}"
    suffix = f"__{slugify(name, '_.')}" if chosen.suffix else ""
    activations, length = study.results["metrics"]["activations"], dataset.seq_len
    facts = study.results["study"]["sae"]
    k = f", k = {facts['k']}" if facts["k"] is not None else ""
    return Source(
        model=chosen.model or name_model(model),
        model_title=model.rpartition("/")[2],
        owner=model.rpartition("/")[0] or str(chosen.creator),
        source_set=source_set,
        id=f"{layer}-{source_set}{suffix}",
        release=release,
        title=title,
        description=f"{title}: {site}",
        creator=str(chosen.creator).strip(),
        creator_id=chosen.creator_id,
        url=chosen.url,
        layer=layer,
        hook_type=hook_type,
        dimension=one.located.describe().d_in or one.load(torch.device("cpu")).d_in,
        layers=_count_layers(used["model"]["name"]),
        prompts=math.ceil(activations / max(1, length - dataset.first_position)),
        prompt_tokens=length,
        dataset=dataset.name if dataset.format == "hub" else None,
        hub_repo=config.publish.repo,
        hub_folder=name if config.publish.repo else None,
        notes=f"{facts['architecture']}, {facts['dict_size']} latents{k}; written by sae-sweeps",
    )


def _split(hook: str) -> tuple[int, str]:
    found = split_hook(hook)
    assert found is not None, "task=latents reads hooks of blocks only"
    return found


def _count_layers(model: str) -> int:
    """Return the number of a model's layers; 0, Neuronpedia's default, if its configuration cannot be read here."""
    try:
        return read_model_info(model, to_plan=True).n_layers
    except ConfigError as error:
        log.warning("the number of layers of %s is not known, and is written as 0: %s", model, error.problem)
        return 0


def _check_sources(saved: Sequence[SavedSAE], sources: Sequence[Source], config: Config) -> None:
    """Check that SAEs have ids of their own, and the latents that are chosen as vectors. Raises: ConfigError."""
    counts = Counter(f"{source.model}/{source.id}" for source in sources)
    (taken, count), *_ = counts.most_common(1)
    if count > 1:
        problem = f"{count} SAEs would have the id {taken}"
        fix = "set neuronpedia.suffix=true, or choose one with sae=FOLDER"
        raise ConfigError("neuronpedia.suffix", config.neuronpedia.suffix, problem, fix)
    for latent in config.neuronpedia.chosen_vectors or []:
        for one in saved:
            if latent >= one.config.dict_size:
                problem, fix = f"{one.title} has no latent {latent}", f"name latents below {one.config.dict_size}"
                raise ConfigError("neuronpedia.vectors", config.neuronpedia.vectors, problem, fix)


def _write(
    one: SavedSAE,
    source: Source,
    study: FinishedStudy,
    labels: Mapping[int, Label],
    config: Config,
    root: Path,
    display: PointProgress,
) -> Path:
    """Write the folder of an SAE, completely or not at all, and read it back. Returns the folder.

    Raises: ConfigError if there is a folder of something else, a link, or weights that cannot be read.
    """
    folder = place(place(root, source.model, "export.folder"), source.id, "export.folder")
    require_no_links(root / source.model, "export.folder")
    _require_ours(folder)
    read_vectors, normalization = _load_vectors(one, config)
    texts = {latent: (label.text, _describe_label(label)) for latent, label in labels.items()}
    size = one.config.dict_size

    def on_batch(done: int) -> None:
        signals.raise_if_stopped()
        display.show_count(done, size, "latents written")

    with write_folder(folder) as partial:
        rows = iterate_table(study.folder / f"{TABLE}.parquet", BATCH)
        written = write_source(partial, source, _require_all(rows, size), texts, read_vectors, on_batch)
        if (found := check_source(partial)) != written:
            raise ValueError(f"{partial} was read back with other lines: {found} in place of {written}")
        write_text(partial / CARD, build_readme(source, written, normalization))
    return folder


def _require_all(batches: Iterator[list[Row]], size: int) -> Iterator[list[Row]]:
    """Yield the rows of a table. Raises: ValueError if they are not those of `size` latents."""
    seen = 0
    for rows in batches:
        yield rows
        seen += len(rows)
    if seen != size:
        raise ValueError(f"the table of latents has {seen} rows, but the SAE has {size} latents")


def _require_ours(folder: Path) -> None:
    """Require that a folder can be replaced: it is missing, empty or an earlier export. Raises: ConfigError."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    card = folder / CARD
    if not card.is_file() or WRITTEN not in card.read_text(encoding="utf-8", errors="replace"):
        problem = f"{folder} holds files that sae-sweeps did not write and must not remove"
        raise ConfigError("export.folder", str(folder.parent.parent), problem, "set export.folder to another folder")


def _load_vectors(one: SavedSAE, config: Config) -> tuple[Vectors, str | None]:
    """Return a function that reads the decoder directions of chosen latents, and how the SAE normalises activations.

    The weights are loaded only if a latent is chosen; without one the second value is None.
    """
    chosen = config.neuronpedia.chosen_vectors
    if chosen == []:
        return lambda latents: {}, None
    sae = one.load(torch.device("cpu"))
    W_dec_FD = sae.W_dec.detach().float()
    wanted = None if chosen is None else set(chosen)

    def read(latents: Sequence[int]) -> dict[int, list[float]]:
        return {
            latent: [shorten(value) for value in W_dec_FD[latent].tolist()]
            for latent in latents
            if wanted is None or latent in wanted
        }

    return read, sae.normalization


def _describe_label(label: Label) -> str | None:
    parts: list[Any] = [f"source: {label.source}"] if label.source else []
    parts += [f"score: {label.score:g}"] if label.score is not None else []
    return "; ".join(parts) or None
