"""A tiny language model and text, and functions that compose a configuration or run the command."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as launch.py sets it, before torch is imported
os.environ["SAE_SWEEPS_COMMAND"] = "python launch.py"  # in messages, whatever runs the tests

import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins

from sae_sweeps.cli import app  # noqa: F401  registers schemas, resolvers and the launcher
from sae_sweeps.config import Config, to_config
from sae_sweeps.runtime.places import PROJECT
from tests.fake_slurm import slurm  # noqa: F401  a fixture of all tests
from tests.prefork import Prefork

hypothesis.settings.register_profile("same examples in every run", derandomize=True)
hypothesis.settings.load_profile("same examples in every run")

Plugins.instance()  # it executes the plugins' modules again, so it must run before a test imports one

WORDS = [
    "the",
    "people",
    "of",
    "a",
    "great",
    "nation",
    "will",
    "keep",
    "their",
    "union",
    "and",
    "the",
    "law",
    "shall",
    "be",
    "just",
    "for",
    "every",
    "one",
    "of",
    "us",
]


def sentence(number: int, words: int = 120) -> str:
    """Text that depends on `number` and is the same in every run."""
    return " ".join(WORDS[(number * 7 + at * at * (number % 5 + 1)) % len(WORDS)] for at in range(words))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    """Run every test in a folder of its own, where it writes `outputs`."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    """A folder of 40 small text files."""
    folder = tmp_path_factory.mktemp("texts")
    for number in range(40):
        (folder / f"{number:02d}.txt").write_text(sentence(number))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, texts) -> Path:
    """An untrained GPT-2 of 2 layers x 16 in a Hugging Face folder, with a tokenizer of its own."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    bpe = ByteLevelBPETokenizer()
    bpe.train([str(file) for file in sorted(texts.glob("*.txt"))], vocab_size=300, special_tokens=["<|endoftext|>"])
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end)
    torch.manual_seed(0)
    shape = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
    GPT2LMHeadModel(GPT2Config(vocab_size=300, bos_token_id=0, eos_token_id=0, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_model, texts) -> list[str]:
    """Overrides that make a point take a second."""
    return [
        f"model.name={tiny_model}",
        "model.hook=blocks.1.hook_resid_pre",
        "dataset=text",
        f"dataset.files={texts}/*.txt",
        "dataset.seq_len=16",
        "dataset.holdout_every=10",
        "dict_size=48",
        "k=4",
        "training.tokens=2400",
        "training.batch_size=60",
        "training.chunk_batches=5",
        "training.dead_after_tokens=300",
        "training.checkpoint_every=7",
        "training.log_every=4",
        "evaluation.tokens=150",
        "tracking=off",
        "device=cpu",
    ]


# training=quick as it was when points got the names that tests know
EARLIER_QUICK = [
    "training.batch_size=1024",
    "training.lr=4e-3",
    "training.betas=[0.9,0.99]",
    "training.warmup_steps=40",
    "training.decay_fraction=0.3",
    "training.initial_bias=mean",
    "training.initial_weights=random",
    "training.chunk_batches=32",
]


def composed(*overrides: str) -> Config:
    """The configuration of a command with these words."""
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return to_config(compose("config", overrides=list(overrides)))


PREFORK: list[Prefork] = []  # at most one, started when it is first needed


def launch(*words: str, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `python launch.py` as a user would, in `cwd`, without a network, but with the libraries imported before."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if not PREFORK:
        PREFORK.append(Prefork(environment))
    if PREFORK[0].has(environment):
        return PREFORK[0].run(words, cwd, environment, timeout)
    return subprocess.run(
        [sys.executable, str(PROJECT / "launch.py"), *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
