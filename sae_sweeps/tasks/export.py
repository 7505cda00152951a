"""Task `export`: write trained SAEs in another library's format, each with a model card."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sae_sweeps.activations.model_info import is_local_path, shared_name
from sae_sweeps.config import Config
from sae_sweeps.config.differences import shorten_paths
from sae_sweeps.config.tasks import EXPORTS
from sae_sweeps.formats.description import Description
from sae_sweeps.formats.files import read_config
from sae_sweeps.formats.layout import CONFIG
from sae_sweeps.formats.registry import WRITERS
from sae_sweeps.runtime.console import console
from sae_sweeps.runtime.errors import NO_POINTS, ConfigError, NotRunError, describe_error
from sae_sweeps.runtime.files import write_text
from sae_sweeps.runtime.leftovers import remove_leftovers
from sae_sweeps.runtime.paths import place, require_no_links, shorten_name
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.sweep import Sweep
from sae_sweeps.sweep.saved_saes import SavedSAE, find_changed_files, read_results, saved_labels
from sae_sweeps.tasks import neuronpedia
from sae_sweeps.tasks.model_card import CENTERED, NORMS_DIFFER, NORMS_RESCALED, build_card, explain_normalization
from sae_sweeps.tasks.study import find_named_or_done

CARD = "README.md"


def run(sweep: Sweep, config: Config) -> list[str]:
    """Write the SAEs that `config` selects in another format. Returns one sentence per SAE that was not written."""
    saved, skipped_reason = find_saes(sweep, config)
    root = choose_folder(sweep, config)
    if choose_format(config) == neuronpedia.FORMAT:
        failures = neuronpedia.export(sweep, config, saved, name_folders(saved), root)
        return [skipped_reason, *failures] if skipped_reason else failures
    written, failures = export(saved, root, config)
    for files in written.values():
        console.print(f"written: {files[-1].parent}", markup=False, soft_wrap=True)
    return [skipped_reason, *failures] if skipped_reason else failures


def find_saes(sweep: Sweep, config: Config) -> tuple[list[SavedSAE], str]:
    """Return the SAEs to export, and one sentence on skipped points (empty if there are none).

    Raises: NotRunError if no point is finished. ConfigError if the SAE of `saved=` does not exist.
    """
    saved, skipped_reason = find_named_or_done(sweep, config)
    if not saved:
        raise NotRunError(skipped_reason or NO_POINTS)
    return saved, skipped_reason


def choose_format(config: Config) -> str:
    """Return the name of the format to write: `format=`, or by default the first of EXPORTS."""
    return config.format or EXPORTS[0]


def choose_folder(sweep: Sweep, config: Config) -> Path:
    """Return the folder that gets a folder per SAE: `export.folder`, or export/<format>/ in the sweep's folder."""
    if config.export.folder is not None:
        return Path(config.export.folder)
    return sweep.folder / "export" / choose_format(config)


def name_folders(saved: Sequence[SavedSAE]) -> list[str]:
    """Return a distinct folder name per SAE.

    The name of an SAE from another library ends in a digest of the SAE's files, as many have the same folder name.
    """
    return [
        shorten_name(name, f"-{one.digest()[:8]}") if one.is_foreign else name
        for one, name in zip(saved, saved_labels(saved), strict=True)
    ]


def export(saved: Sequence[SavedSAE], root: Path, config: Config) -> tuple[dict[str, list[Path]], list[str]]:
    """Write each SAE into a folder in `root`. Returns the files of each by its folder, and one sentence per failure.

    The last file is the model card, in the folder that a library loads.
    """
    remove_leftovers(root)
    written: dict[str, list[Path]] = {}
    failures = []
    for one, name in zip(saved, name_folders(saved), strict=True):
        try:
            written[name] = _export(one, name, root, config)
        except (ConfigError, OSError) as error:
            failures.append(f"{name}: {describe_error(error)}")
    return written, failures


def _export(one: SavedSAE, name: str, root: Path, config: Config) -> list[Path]:
    """Write one SAE and a model card into the folder `name` in `root`. Returns the files, the card last.

    Raises: ConfigError if the SAE cannot be read, if the format cannot represent the SAE, or if a folder to write to is
    a link.
    """
    format = choose_format(config)
    require_no_links(root / name, "export.folder")
    target = place(root, name, "export.folder")
    sae, description = one.load(torch.device("cpu")), describe_saved(one, format)
    _require_architecture(sae.architecture, format)
    sae, notes = _rescale(sae)
    expects_normalized = sae.normalization != "none" and not WRITERS[format].normalizes
    if expects_normalized:
        if not config.export.normalized:
            library = WRITERS[format].library
            problem = f"the SAE normalises activations ({sae.normalization}), which {library} cannot represent"
            fix = "train with sae.normalize_input=false, or set export.normalized=true and pass normalised activations"
            raise ConfigError("export.normalized", False, problem, fix)
        description = replace(description, input_normalization=sae.normalization)
        notes.append(explain_normalization(sae.normalization))
        sae.normalization = "none"
    elif sae.normalization == "center":
        notes.append(CENTERED)
    metadata = (read_config(one.folder / CONFIG).get("metadata") or {}) if one.format == "sae_lens" else {}
    metadata = shorten_paths(metadata)
    try:
        files = WRITERS[format].write(target, sae, description, metadata)
    except ValueError as error:
        raise ConfigError("format", format, str(error), "set format=sae_lens, which supports this SAE") from None
    folder = files[0].parent
    results = {} if description.directions_of else read_results(one)
    if changed := find_changed_files(one):
        notes.append(f"**It is not as it was trained**: {', '.join(changed)} changed afterwards.")
    text = build_card(
        name,
        format,
        description,
        results.get("metrics", {}),
        results.get("config", {}),
        results.get("provenance", {}),
        folder.relative_to(root).as_posix(),
        notes,
    )
    write_text(folder / CARD, text)
    return [*files, folder / CARD]


def _rescale(sae: InferenceSAE) -> tuple[InferenceSAE, list[str]]:
    """Return the SAE with decoder rows of norm 1 where that changes no reconstruction, and a note for the card.

    There is no note for an SAE that has such rows already, as those that are trained here.
    """
    if sae.has_unit_rows():
        return sae, []
    rescaled = sae.with_unit_rows()
    return (sae, [NORMS_DIFFER]) if rescaled is None else (rescaled, [NORMS_RESCALED])


def _require_architecture(architecture: str, format: str) -> None:
    """Require that the library of `format` supports this architecture. Raises: ConfigError if it does not."""
    writer = WRITERS[format]
    if writer.has_architecture(architecture):
        return
    supported = ", ".join(writer.architectures)
    problem = f"{writer.library} does not support the architecture {architecture}, but only {supported}"
    others = [name for name in EXPORTS if WRITERS[name].has_architecture(architecture)]
    fix = f"set format={others[0]}, which supports this SAE" if others else "load the SAE with sae_sweeps.load_sae"
    raise ConfigError("format", format, problem, fix)


def describe_saved(one: SavedSAE, format: str) -> Description:
    """Return the description of an SAE (model, hook, sizes) from the SAE's files and, for a point, its configuration.

    The model is given as `shared_name` does.
    """
    description, model = one.located.describe(), one.config.model
    if one.declared is None:
        needs_hub_name = format == "saebench" or is_local_path(model.name)
        name = model.aliases[0] if needs_hub_name and model.aliases else model.name
        description = replace(description, model=name, hook=model.hook, k=one.config.k)
    return replace(description, model=None if description.model is None else shared_name(description.model))
