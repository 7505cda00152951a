"""Parts of `gpu_check.py` that run other programs or models: tests, a language model, eai-sparsify, a whole sweep."""

import contextlib
import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_parts import Check, Rows, time_calls
from plan import PROJECT
from steps.common import batches

from sae_sweeps.activations.language_model import LanguageModel
from sae_sweeps.activations.plain_model import find_difference
from sae_sweeps.config.schema import ModelConfig
from sae_sweeps.runtime.files import read_json

LIMIT = 150  # seconds for a process that is started


def time_language_model(check: Check) -> Rows:
    """Tokens per second of a language model of GPT-2 small's shape with random weights, up to its eighth block.

    Of each reader, with the relative difference of its activations from TransformerLens's (root mean square).
    """
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    shape: dict[str, Any] = {"n_layer": 4, "n_embd": 64, "n_head": 4, "vocab_size": 1000} if check.small else {}
    config, folder = GPT2Config(bos_token_id=0, eos_token_id=0, **shape), tempfile.mkdtemp()
    GPT2LMHeadModel(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<e>": 0, "a": 1}, unk_token="<e>"))
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<e>", eos_token="<e>").save_pretrained(folder)
    tokens = torch.randint(1, config.vocab_size, (16 if check.small else 2048, 128))
    hook, rows = f"blocks.{config.n_layer * 2 // 3}.hook_resid_pre", []
    for dtype in ("float32", "bfloat16"):
        for sequences in (32, 512):
            options = {"dtype": dtype, "batch_sequences": sequences, "reader": "transformers"}
            model = LanguageModel(ModelConfig(name=folder, hook=hook, **options), torch.device(check.device))
            few = tokens[:64]
            error = find_difference(model.activations_at(few, [hook])[hook], model.activations(few))
            fast = model.reader.describe(hook).get("attention", "transformer_lens, as both differ")
            for way, read in (("transformer_lens", model.activations), (fast, functools.partial(_read_fast, model))):
                seconds = time_calls(check, functools.partial(_call_with, read, tokens), 2)
                row = {"reader": way, "dtype": dtype, "sequences": sequences, "tokens/s": tokens.numel() / seconds}
                rows.append(row | {"relative difference": 0.0 if way == "transformer_lens" else error})
    return rows


def _read_fast(model: LanguageModel, tokens: torch.Tensor) -> None:
    model.activations_at(tokens, [model.hook])


def _call_with(read: Callable[[torch.Tensor], Any], tokens: torch.Tensor, _: int) -> None:
    read(tokens)


def time_sparsify(check: Check) -> Rows:
    """Milliseconds of a TopK step of eai-sparsify, where it is installed, at the size of the first row of steps."""
    from sparsify import SparseCoder, SparseCoderConfig

    spec, rows = check.spec("topk"), []
    xs = batches(spec)
    for autocast in (False, True):
        settings = SparseCoderConfig(num_latents=spec.dict_size, k=spec.k)
        coder = SparseCoder(spec.d, settings, device=check.device, dtype=torch.float32)
        optimizer = torch.optim.Adam(coder.parameters(), lr=1e-6, betas=(0.9, 0.99), fused=check.on_gpu)

        def step(i: int, coder: Any = coder, optimizer: Any = optimizer, autocast: bool = autocast) -> None:
            with torch.autocast(check.device, dtype=torch.bfloat16, enabled=autocast):
                out = coder(xs[i % len(xs)])
            out.fvu.backward()
            coder.remove_gradient_parallel_to_decoder_directions()
            optimizer.step()
            optimizer.zero_grad()
            coder.set_decoder_norm_to_unit_norm()

        rows.append(
            {"precision": "bfloat16 autocast" if autocast else "float32", "ms": 1e3 * time_calls(check, step, 20)}
        )
    return rows


def run_tests(check: Check) -> Rows:
    """The tests that need a GPU, and those of the kernels on it."""
    rows = []
    for name, chosen in {
        "gpu": ["-m", "gpu", "tests/saes", "tests/training"],
        "kernels": ["tests/saes/kernels"],
    }.items():
        words = [sys.executable, "-m", "pytest", "-q", *chosen, "-p", "no:cacheprovider"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, cwd=PROJECT)
        (check.folder / f"pytest-{name}.log").write_text(done.stdout + done.stderr)
        rows.append({"tests": name, "exit": done.returncode, "end": (done.stdout.strip().splitlines() or [""])[-1]})
    return rows


def run_sweep(check: Check) -> Rows:
    """The command itself: a pack of three SAEs; killed on the way and resumed: the same files?"""
    size = ["dict_size=256", "training.tokens=20480"] if check.small else ["dict_size=3072", "training.tokens=163840"]
    with tempfile.TemporaryDirectory() as root:
        words = [
            sys.executable,
            "launch.py",
            "-m",
            "sae=batchtopk,topk,jumprelu",
            *size,
            "training.checkpoint_every=40",
        ]
        words += ["evaluation.tokens=8192", "tracking=off", f"device={check.device}", f"output_root={root}"]
        began = time.perf_counter()
        whole = subprocess.run([*words, "name=whole"], capture_output=True, text=True, timeout=LIMIT, cwd=PROJECT)
        seconds = time.perf_counter() - began
        (check.folder / "sweep.log").write_text(whole.stdout + whole.stderr)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([*words, "name=killed"], capture_output=True, timeout=0.75 * seconds, cwd=PROJECT)
        subprocess.run([*words, "name=killed"], capture_output=True, timeout=LIMIT, cwd=PROJECT)
        rows = []
        for results in sorted(Path(root, "whole").glob("*/results.json")):
            point, metrics = results.parent.name, read_json(results)["metrics"]
            files = [Path(root, name, point, "sae", "sae_weights.safetensors") for name in ("whole", "killed")]
            same = len({file.read_bytes() if file.exists() else b"" for file in files}) == 1
            row = {"point": point, "NMSE": metrics["nmse"], "CE degradation": metrics["ce_degradation"]}
            rows.append(row | {"same bytes after a kill": same, "seconds of the sweep": seconds})
        return rows or [{"exit": whole.returncode, "end": whole.stdout[-300:]}]
