"""Training in a notebook: equal settings give the same SAEs and metrics as the command."""

import json

import pandas
import pytest
import torch

from sae_sweeps import (
    BatchTopKSAE,
    JumpReLUSAE,
    TensorStream,
    TopKSAE,
    TrainingConfig,
    evaluate,
    load_sae,
    save_sae,
    train_pack,
)
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.sweep import Point
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.sweep.saved_saes import find_saved_sae
from sae_sweeps.tasks import train
from sae_sweeps.training.curve import read_lines
from tests.conftest import composed

SETTINGS = {"tokens": 2400, "batch_size": 60, "dead_after_tokens": 300, "log_every": 4, "lr": 4e-3}
QUICK = {"warmup_steps": 40, "decay_fraction": 0.3, "initial_bias": "mean"}  # the rest of training=quick


def saes() -> list:
    return [BatchTopKSAE(16, 48, k=4), TopKSAE(16, 32, k=3, seed=1), JumpReLUSAE(16, 48, sparsity_coefficient=0.01)]


@pytest.fixture(scope="module")
def points(tiny, tmp_path_factory) -> dict:
    """Train three points in one pack with the command. Returns their folders by architecture."""
    root = tmp_path_factory.mktemp("points")
    words = {
        "batchtopk": ["sae=batchtopk"],
        "topk": ["sae=topk", "dict_size=32", "k=3", "seed=1"],
        "jumprelu": ["sae=jumprelu", "sae.sparsity_coefficient=0.01"],
    }
    pack = [Point(composed(*tiny, *more, f"output_root={root}"), root / name) for name, more in words.items()]
    train.run(pack, Limits(), SweepProgress(len(pack)), lambda point, error: pytest.fail(str(error)) if error else None)
    return {name: root / name for name in words}


@pytest.mark.parametrize("together", [True, False])
def test_sae_curve_and_metrics_equal_the_commands_to_the_byte(stream, points, tmp_path, together):
    trained = saes()
    if together:
        curves = train_pack(trained, stream, **SETTINGS, **QUICK, progress=False)
    else:
        curves = [train_pack([sae], stream, **SETTINGS, **QUICK, progress=False)[0] for sae in trained]
    data = stream.held_out(150)
    for sae, curve in zip(trained, curves, strict=True):
        folder = points[sae.architecture]
        save_sae(sae, tmp_path / sae.architecture, stream)
        weights, config = "sae_weights.safetensors", "cfg.json"
        assert (tmp_path / sae.architecture / weights).read_bytes() == (folder / "sae" / weights).read_bytes()
        mine, theirs = (json.loads((of / config).read_text()) for of in (tmp_path / sae.architecture, folder / "sae"))
        assert mine["metadata"].pop("sae_sweeps").items() <= theirs["metadata"].pop("sae_sweeps").items()
        assert mine == theirs
        lines = read_lines(folder / "metrics.jsonl")
        curve_of_command = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
        # the command's curve has a line for each checkpoint as well
        assert [line for line in curve_of_command if line["step"] % 4 == 0] == curve
        results = json.loads((folder / "results.json").read_text())
        options = {"k": results["config"]["k"], "batch_size": SETTINGS["batch_size"]}
        assert evaluate(sae, stream.model, data, **options) == results["metrics"]


def test_a_saved_sae_is_loaded_the_same_here_and_by_the_command(stream, tmp_path, tiny):
    sae = BatchTopKSAE(16, 24, k=2)
    sae.threshold.fill_(0.5)
    save_sae(sae, tmp_path / "mine", stream)
    x_BD = stream.chunk(0)[:9]
    assert torch.equal(load_sae(tmp_path / "mine")(x_BD), sae(x_BD))
    found = find_saved_sae(str(tmp_path / "mine"), "saved", composed(*tiny))
    assert (found.config.dict_size, found.config.k) == (24, 2)
    with pytest.raises(ConfigError, match="was trained at blocks"):
        find_saved_sae(str(tmp_path / "mine"), "saved", composed(*tiny, "model.hook=blocks.0.hook_resid_pre"))


def test_each_sae_trains_on_a_tensor_by_its_own_settings(capsys):
    x_AD = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    slow = TrainingConfig(tokens=1000, batch_size=50, lr=1e-9)
    fast = TrainingConfig(tokens=3000, batch_size=100, lr=1e-2)
    pair, lines = [TopKSAE(16, 32, k=4), TopKSAE(16, 32, k=4)], []
    stream = TensorStream(x_AD, 100)
    curves = train_pack(pair, stream, [slow, fast], log_every=5, on_line=lambda sae, line: lines.append((sae, line)))
    assert [[line["step"] for line in curve] for curve in curves] == [[5, 10, 15, 20], [5, 10, 15, 20, 25, 30]]
    assert [line for sae, line in lines if sae is pair[1]] == curves[1]
    before = (x_AD - TopKSAE(16, 32, k=4)(x_AD)).square().mean().item()
    after = [(x_AD - sae(x_AD)).square().mean().item() for sae in pair]
    assert after[0] == pytest.approx(before, rel=1e-3)
    assert after[1] < 0.7 * before
    assert "topk-32 (2 of 2): 3,000 of 3,000 tokens" in capsys.readouterr().out
    assert list(pandas.DataFrame(curves[0])["tokens"]) == [250, 500, 750, 1000]
    assert train_pack([], stream, slow) == []
    alone = train_pack(TopKSAE(16, 32, k=4), stream, tokens=1e3, batch_size=50, lr=1e-9, log_every=5, progress=False)
    assert alone == curves[:1]  # one SAE in place of a list


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"batch_size": 70}, "training.batch_size=70: must divide the stream's chunk_size of 300 activations"),
        ({"lr": -1.0}, "training.lr=-1.0: must be greater than 0"),
        ({"tokens": 20}, "training.tokens=20: must be at least training.batch_size="),
        ({"tokens": "???"}, "training.tokens=None: must be given: it has no default"),
        ({"precision": "tf32"}, "training.precision=tf32: needs a CUDA device"),
        ({"settings": [TrainingConfig()]}, "settings=1: must have one entry for each of 2 SAEs"),
    ],
)
def test_unusable_training_settings_are_refused(stream, change, problem):
    with pytest.raises(ConfigError) as refused:
        train_pack([TopKSAE(16, 32, k=4), TopKSAE(16, 32, k=4)], stream, **{**SETTINGS, **change})
    assert problem in str(refused.value)


def test_unfit_saes_and_streams_are_refused(stream):
    with pytest.raises(ConfigError, match="d_in=8: must be the width of the stream, 16"):
        train_pack([TopKSAE(8, 32, k=4)], stream, **SETTINGS)
    with pytest.raises(ConfigError, match="saes=InferenceSAE: must be an SAE that can be trained"):
        train_pack([TopKSAE(16, 32, k=4).for_inference()], stream, **SETTINGS)
