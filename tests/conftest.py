"""A tiny language model, text and sweep, and functions that compose a configuration or run the command."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as launch.py sets it, before torch is imported
os.environ["SAE_SWEEPS_COMMAND"] = "python launch.py"  # in messages, whatever runs the tests

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from sae_sweeps.cli import app  # noqa: F401  registers schemas, resolvers and the launcher
from sae_sweeps.config import Config, to_config
from sae_sweeps.runtime.places import PROJECT
from tests.fake_slurm import slurm  # noqa: F401  a fixture of all tests
from tests.prefork import Child, Prefork

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


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that `make` has filled, in whichever worker of pytest-xdist first needed it."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, is_made = root / f"{name}0", root / f"{name}.made"  # the embedded model is in `model`
    with FileLock(root / f"{name}.lock"):
        if not is_made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            is_made.touch()
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    """A folder of 40 small text files."""

    def write(folder: Path) -> None:
        for number in range(40):
            (folder / f"{number:02d}.txt").write_text(sentence(number))

    return make_once(tmp_path_factory, "texts", write)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, texts) -> Path:
    """An untrained GPT-2 of 2 layers x 16 in a Hugging Face folder, with a tokenizer of its own."""

    def write(folder: Path) -> None:
        import torch
        from tokenizers import ByteLevelBPETokenizer
        from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

        bpe = ByteLevelBPETokenizer()
        bpe.train([str(file) for file in sorted(texts.glob("*.txt"))], vocab_size=300, special_tokens=["<|endoftext|>"])
        end = "<|endoftext|>"
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end)
        torch.manual_seed(0)
        shape = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
        config = GPT2Config(vocab_size=300, bos_token_id=0, eos_token_id=0, **shape)
        GPT2LMHeadModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return make_once(tmp_path_factory, "model", write)


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
    """The configuration of a command with these words.

    As in a sweep, Hydra composes each choice of files once, and values are set in a copy: in a tenth of the time.
    """
    from sae_sweeps.launchers.composition import _with_values  # it imports a plugin

    chosen, values = split_choices(overrides)
    config = _with_values(compose_choices(*chosen), values)
    return to_config(config if config is not None else compose_choices(*overrides))  # Hydra's error has a message


def split_choices(words: Sequence[str]) -> tuple[list[str], list[Override]]:
    """The words that choose files of conf/, or add and remove settings, and the overrides that only set a value."""
    from sae_sweeps.launchers.composition import _is_value

    parsed = list(zip(words, OverridesParser.create().parse_overrides(list(words)), strict=True))
    values = [override for _, override in parsed if _is_value(override, list_options)]
    return [word for word, override in parsed if override not in values], values


@cache
def list_options(group: str) -> list[str]:
    """The files of a group of conf/."""
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return GlobalHydra.instance().config_loader().get_group_options(group)


@cache
def compose_choices(*words: str) -> DictConfig:
    """What Hydra composes of these words."""
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return compose("config", overrides=list(words))


PREFORK: list[Prefork] = []  # at most one, started when it is first needed


def start(*words: str, cwd: Path) -> Child | subprocess.Popen[str]:
    """Start `python launch.py` as a user would, in `cwd`, without a network, but with the libraries imported before."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if not PREFORK:
        PREFORK.append(Prefork(environment))
    if PREFORK[0].has(environment):
        return PREFORK[0].start(words, cwd, environment)
    command = [sys.executable, str(PROJECT / "launch.py"), *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment, **streams)


def launch(*words: str, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `python launch.py`, as `start` starts it, to its end."""
    process = start(*words, cwd=cwd)
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(list(words), process.returncode, out, err)


SETTINGS = [
    "meta.steps=60",
    "meta.batch_size=16",
    "meta.checkpoint_every=25",
    "stitch.tokens=150",
    "stitch.ce_tokens=150",
    "latents.tokens=150",
]
GIVEN = ["name=first", "tracking=off", "device=cpu", *SETTINGS]  # given to every task on the sweep `first`


@pytest.fixture(scope="session")
def swept(tmp_path_factory, tiny) -> Path:
    """Return the folder of the sweep `first`: four points, and then all studies and a report."""

    def train(folder: Path) -> None:
        words = ["sae=batchtopk,topk", "dict_size=32,48", "then=[stitch,meta_sae,meta_sizes,latents,report]"]
        done = launch("-m", *tiny, *words, *GIVEN, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr

    return make_once(tmp_path_factory, "swept", train) / "outputs" / "first"


@pytest.fixture
def first(swept, tmp_path) -> Path:
    """Return a copy of the sweep `first` in the test's working folder."""
    return shutil.copytree(swept, tmp_path / "outputs" / "first")


def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Let the slow tests that share a fixture share a worker."""
    if config.getvalue("dist") != "loadgroup":
        return None  # the scheduling of that name
    from tests.integration.groups import GroupScheduling

    return GroupScheduling(config, log)
