"""Task `saebench`: SAEBench's metrics; those of its core evaluation for all SAEs on one pass of the model."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from sae_sweeps.activations.source import ActivationSource
from sae_sweeps.config import Config
from sae_sweeps.config.identity import select_stream_settings
from sae_sweeps.config.saebench import CORE, UNRELIABLE
from sae_sweeps.evaluation.ratios import describe_metrics
from sae_sweeps.evaluation.saebench import Core, CoreSettings, measure_core
from sae_sweeps.formats.saebench_results import build_core_results, name_file
from sae_sweeps.runtime.files import write_json
from sae_sweeps.runtime.memory import free_bytes
from sae_sweeps.runtime.progress import PointProgress, progress_callback
from sae_sweeps.runtime.provenance import provenance
from sae_sweeps.saes import InferenceSAE
from sae_sweeps.sweep import Sweep
from sae_sweeps.tasks.export import describe_saved
from sae_sweeps.tasks.run_studies import run_studies
from sae_sweeps.tasks.saebench_peer import FORMAT, require_package, run_peer
from sae_sweeps.tasks.study import Study, find_named_or_done

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.5  # of the free memory that the SAEs of one pass may take
SHOWN = ("kl_div_score", "ce_loss_score", "explained_variance", "l0", "nmse")  # in the log
# what SAEBench names in its configuration, all of which is computed here
COMPUTED = (
    "kl", "ce_loss", "l2_norms", "sparsity_metrics", "variance_metrics", "featurewise_density_statistics",
    "featurewise_weight_based_metrics",
)  # fmt: skip


def plan_studies(sweep: Sweep, command: Config) -> tuple[list[Study], str]:
    """Return one study per evaluation and SAE that the command selects, and one sentence on skipped points, or "".

    Raises: ConfigError if the SAE of `saved=` does not exist, or no Python has the package that an evaluation needs.
    """
    given = command.saebench
    require_package(given.python, given.evals)
    settings: dict[str, dict[str, Any]] = {name: {"eval": name} for name in given.evals}
    if CORE in settings:
        settings[CORE] |= {name: value for name, value in asdict(given).items() if name not in ("evals", "python")}
    saved, skipped_reason = find_named_or_done(sweep, command)
    studies = [
        Study.from_command("saebench", sweep, command, f"{name}-{one.title}", {"sae": one}, chosen)
        for name, chosen in settings.items()
        for one in saved
    ]
    return studies, skipped_reason


def run(sweep: Sweep, config: Config) -> list[str]:
    """Compute SAEBench's metrics of the SAEs that `config` selects. Returns one sentence per failure."""
    studies, skipped_reason = plan_studies(sweep, config)
    if doubtful := [name for name in config.saebench.evals if name in UNRELIABLE]:
        log.warning("%s: arXiv:2605.18229 finds these metrics unreliable", ", ".join(doubtful))
    passes = _Passes([study for study in studies if study.settings["eval"] == CORE])

    def run_one(study: Study, display: PointProgress) -> None:
        if study.settings["eval"] == CORE:
            _write_core(study, passes.measure(study, display))
        else:
            run_peer(study, display, config.saebench.python)

    return run_studies(studies, run_one, skipped_reason)


@dataclass
class _Measured:
    """What is known of an SAE after a pass: its metrics, or the error with which it failed."""

    core: Core | None = None
    error: Exception | None = None
    settings: CoreSettings | None = None
    described: dict[str, Any] = field(default_factory=dict)


class _Passes:
    """Measures the SAEs of core studies together: one pass of the language model for those of the same text and hook.

    A pass is made when the first of its studies needs it, with all that are not done then.
    """

    def __init__(self, studies: Sequence[Study]) -> None:
        self._studies = {study.name: study for study in studies}
        self._measured: dict[str, _Measured] = {}

    def measure(self, study: Study, display: PointProgress) -> _Measured:
        """Return what is measured of the SAE of a study. Raises: the error with which it failed."""
        if study.name not in self._measured:
            self._pass(study, display)
        measured = self._measured.pop(study.name)
        if measured.error is not None:
            raise measured.error
        return measured

    def _pass(self, first: Study, display: PointProgress) -> None:
        """Measure the SAE of a study, and with it those of later studies that fit into memory."""
        names = list(self._studies)
        later = [self._studies[name] for name in names[names.index(first.name) :]]
        group = [one for one in later if _stream_of(one) == _stream_of(first) and (one is first or not one.is_done())]
        source, saes = first.load_source(), dict[str, InferenceSAE]()
        limit = MEMORY_SHARE * free_bytes(source.device)
        for study in group:
            if saes and sum(map(_count_bytes, saes.values())) * (1 + 1 / len(saes)) > limit:
                break  # the rest has a pass of its own
            try:
                sae = study.load_sae("sae", source)
                saes[study.name] = sae.with_unit_rows() or sae  # as it is exported
            except Exception as error:
                self._measured[study.name] = _Measured(error=error)
        if not saes:
            return
        try:
            self._measured |= _measure(first, source, saes, display)
        except Exception as error:
            self._measured |= {name: _Measured(error=error) for name in saes}


def _stream_of(study: Study) -> str:
    return json.dumps([select_stream_settings(study.config), study.settings], sort_keys=True)


def _count_bytes(sae: InferenceSAE) -> int:
    return sum(weight.numel() * weight.element_size() for weight in sae.parameters())


def _measure(
    study: Study, source: ActivationSource, saes: dict[str, InferenceSAE], display: PointProgress
) -> dict[str, _Measured]:
    """Return the core metrics of SAEs by the names of their studies, on the held-out text of one of them."""
    names = ("reconstruction_batches", "sparsity_batches", "batch_sequences", "exclude_special_tokens")
    asked = CoreSettings(**{name: study.settings[name] for name in names})
    tokens_NS = source.tokens.held_out(asked.sequences).tokens_NS
    settings = asked.fit(len(tokens_NS))
    if settings.sparsity_batches < asked.sparsity_batches:
        text = f"the held-out text has {len(tokens_NS):,} sequences: {settings.sparsity_batches:,} batches"
        log.info("%s, fewer than saebench.sparsity_batches=%d", text, asked.sparsity_batches)
    display.show_stage(f"SAEBench's core metrics of {len(saes)} SAEs")
    found = measure_core(source.model, saes, tokens_NS, settings, progress_callback(display, "batches"))
    return {
        name: _Measured(core, settings=settings, described=_describe_sae(saes[name])) for name, core in found.items()
    }


def _describe_sae(sae: InferenceSAE) -> dict[str, Any]:
    """Return what is known of an SAE from its weights, by SAELens' names."""
    return {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.dict_size,
        **({} if sae.k is None else {"k": sae.k}),
        "dtype": "float32",
        "apply_b_dec_to_input": sae.centers_input,
        "normalize_activations": sae.normalization,
    }


def _write_core(study: Study, measured: _Measured) -> None:
    """Write SAEBench's file and results.json of a study."""
    core, settings = measured.core, measured.settings
    assert core is not None, "an SAE without an error has metrics"
    assert settings is not None, "a pass has settings"
    (saved,), config = study.saved.values(), study.config
    description = describe_saved(saved, FORMAT)
    about = {
        "model_name": description.model,
        "hook_name": config.model.hook,
        "context_size": config.dataset.seq_len,
        "prepend_bos": config.dataset.prepend_bos,
    }
    evaluated = {
        "model_name": description.model or "",
        "llm_dtype": config.model.dtype,
        "batch_size_prompts": settings.batch_sequences,
        "n_eval_reconstruction_batches": settings.reconstruction_batches,
        "n_eval_sparsity_variance_batches": settings.sparsity_batches,
        "dataset": _name_text(config),
        "context_size": config.dataset.seq_len,
        **{f"compute_{name}": True for name in COMPUTED},
        "exclude_special_tokens_from_reconstruction": settings.exclude_special_tokens,
        "verbose": False,
    }
    own = {name: core.metrics[name] for name in ("nmse", "fvu")}
    origin = {"computed_by": "sae-sweeps", **provenance(), "study": study.name, **own}
    release, title = config.name, saved.title
    described = {**measured.described, **about}
    content = build_core_results(release, title, evaluated, core.metrics, core.latents, described, origin)
    write_json(study.folder / name_file(release, title), content)
    study.write_results(core.metrics, evaluated=evaluated)
    log.info("%s: %s", study.name, describe_metrics({name: core.metrics[name] for name in SHOWN}))
    density_F = torch.tensor(core.latents["feature_density"])
    tokens = settings.sparsity_batches * settings.batch_sequences * config.dataset.seq_len
    log_density_F = density_F.clamp(min=0.1 / tokens).log10().numpy()  # log10(0) is -inf
    study.track("step", lambda run: run.histogram("log10_feature_density", log_density_F), core.metrics)


def _name_text(config: Config) -> str:
    """Return the name of the data set, or that of its files, without their folders."""
    dataset = config.dataset
    return dataset.name or ", ".join(glob.rpartition("/")[2] for glob in dataset.globs)
