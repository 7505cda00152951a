"""The library for notebooks: equal settings give the same SAEs and metrics as the command."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pandas
import pytest
import torch
from safetensors.torch import load_file

import sae_sweeps
from sae_sweeps import (
    ActivationStream,
    BatchTopKSAE,
    DatasetConfig,
    JumpReLUSAE,
    MetaSAE,
    ModelConfig,
    TensorStream,
    TopKSAE,
    TrainingConfig,
    evaluate,
    load_sae,
    save_sae,
    stitch,
    train_pack,
)
from sae_sweeps.runtime.errors import ConfigError, TrainingError
from sae_sweeps.runtime.progress import SweepProgress
from sae_sweeps.runtime.provenance import PROJECT
from sae_sweeps.sweep import Point
from sae_sweeps.sweep.packs import Limits
from sae_sweeps.sweep.saved_saes import find_saved_sae
from sae_sweeps.tasks import train
from tests.conftest import composed, sentence
from tests.tasks.conftest import done, point, swept  # noqa: F401  `swept` is a fixture here too

HOOK = "blocks.1.hook_resid_pre"
SETTINGS = {"tokens": 2400, "batch_size": 60, "dead_after_tokens": 300, "log_every": 4, "lr": 4e-3}
QUICK = {"warmup_steps": 40, "decay_fraction": 0.3, "initial_bias": "mean"}  # the rest of training=quick


@pytest.fixture(scope="module")
def stream(tiny_model, texts) -> ActivationStream:
    """Return the stream that the points of `tiny` train on."""
    dataset = DatasetConfig(format="text", files=f"{texts}/*.txt", seq_len=16, holdout_every=10)
    return ActivationStream.from_model(tiny_model, HOOK, dataset=dataset, chunk_size=300, device="cpu")


def saes() -> list:
    return [BatchTopKSAE(16, 48, k=4), TopKSAE(16, 32, k=3, seed=1), JumpReLUSAE(16, 48, sparsity_coefficient=0.01)]


# public names


def test_importing_the_package_imports_nothing_heavy():
    code = "import sae_sweeps, sys; print(dir(sae_sweeps)); print([m for m in ('torch', 'hydra') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    names, heavy = map(ast.literal_eval, ran.stdout.splitlines())
    assert heavy == []
    assert set(sae_sweeps.__all__) <= set(names)


def test_every_public_name_exists_is_documented_and_is_seen_by_type_checkers():
    for name in sae_sweeps.__all__:
        assert getattr(sae_sweeps, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'train_sae'"):
        sae_sweeps.train_sae  # noqa: B018
    tree = ast.parse((PROJECT / "sae_sweeps" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {one.module: tuple(alias.name for alias in one.names) for one in block.body}
    assert seen == {f"sae_sweeps.{module}": names for module, names in sae_sweeps._MODULES.items()}
    assert sorted(sum(seen.values(), ())) == sorted(sae_sweeps.__all__)


# equal to the command


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
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        curve_of_command = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
        # the command's curve has a line for each checkpoint as well
        assert [line for line in curve_of_command if line["step"] % 4 == 0] == curve
        assert evaluate(sae, stream.model, data) == json.loads((folder / "results.json").read_text())["metrics"]


def test_a_composed_configuration_makes_the_same_stream(stream, tiny):
    assert torch.equal(ActivationStream(composed(*tiny)).chunk(2), stream.chunk(2))


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


# text


def test_documents_in_memory_and_in_files_give_the_same_stream(tiny_model, texts):
    documents = [sentence(number) for number in range(40)]
    here = ActivationStream.from_model(tiny_model, HOOK, texts=documents, seq_len=16, chunk_size=300, seed=3)
    there = ActivationStream.from_model(tiny_model, HOOK, files=f"{texts}/*.txt", seq_len=16, chunk_size=300, seed=3)
    assert (here.d_in, here.chunk_size) == (16, 300)
    for index in (0, 5):
        assert here.chunk(index).shape == (300, 16)
        assert torch.equal(here.chunk(index), there.chunk(index))
    assert torch.equal(here.held_out(60).acts_AD, there.held_out(60).acts_AD)
    assert here.held_out(60).acts_AD.shape == (60, 16)
    unseeded = ActivationStream.from_model(tiny_model, HOOK, texts=documents, seq_len=16, chunk_size=300)
    assert not torch.equal(unseeded.chunk(0), here.chunk(0))
    save_sae(TopKSAE(16, 24, k=2), "mine", here)
    assert "sae-sweeps-" not in Path("mine/cfg.json").read_text()


def test_models_and_data_sets_are_found_by_their_names_in_conf(monkeypatch):
    monkeypatch.setattr("sae_sweeps.api.ActivationSource", MagicMock())
    stream = ActivationStream.from_model("embedded", dataset="embedded")
    config = composed()
    assert (stream.config.model, stream.config.dataset) == (config.model, config.dataset)


def test_activations_are_kept_in_a_cache(tiny_model, texts, tmp_path):
    files = f"{texts}/*.txt"
    first, second = (
        ActivationStream.from_model(tiny_model, HOOK, files=files, seq_len=16, chunk_size=60, cache=tmp_path / "cache")
        for _ in range(2)
    )
    expected = first.chunk(0)
    second._source.model.activations = None  # fails if it is called
    assert torch.equal(second.chunk(0), expected)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"texts": None}, "text=None: a stream needs exactly one text"),
        ({"files": "x/*.txt"}, "text=texts and files: a stream needs exactly one text"),
        ({"texts": "a document"}, "texts=str: is not a list of strings"),
        ({"texts": None, "files": "x/*.csv"}, "files=x/*.csv: do not all end in one of .txt, .json"),
        ({"texts": None, "files": "nowhere/*.txt"}, "dataset.files=nowhere/*.txt: matches no file"),
        ({"texts": None, "dataset": "wikipedia"}, "dataset=wikipedia: is none of embedded, hub"),
        ({"hook": None}, "hook=None: has no default for this model"),
        ({"hook": "blocks.7.hook_resid_pre"}, "model.hook=blocks.7.hook_resid_pre: the model has layers 0 to 1"),
        ({"seq_len": 64}, "dataset.seq_len=64: the model reads at most 32 tokens"),
        ({"seq_len": 2}, "dataset.seq_len=2: must be at least 3"),
        ({"chunk_size": 0}, "must be greater than 0"),
        ({"device": "gpu"}, "device=gpu: is not a known device"),
        ({"model": "./nowhere"}, "model.name=./nowhere: no such folder"),
        ({"model": ModelConfig(name="./nowhere", hook=HOOK)}, "model.name=./nowhere: no such folder"),
    ],
)
def test_unusable_settings_are_refused_before_the_model_is_loaded(tiny_model, monkeypatch, settings, problem):
    monkeypatch.setattr("sae_sweeps.activations.source.LanguageModel", None)
    usual = {"model": tiny_model, "hook": HOOK, "texts": ["a", "b"], "seq_len": 16, "device": "cpu"}
    with pytest.raises(ConfigError) as refused:
        ActivationStream.from_model(**{**usual, **settings})
    assert problem in str(refused.value)


# training


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


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"batch_size": 70}, "training.batch_size=70: does not divide the stream's chunk_size, 300 activations"),
        ({"lr": -1.0}, "training.lr=-1.0: must be greater than 0"),
        ({"tokens": 20}, "training.tokens=20: is less than one batch"),
        ({"tokens": "???"}, "training.tokens=None: has no default"),
        ({"precision": "tf32"}, "training.precision=tf32: needs a CUDA device"),
        ({"settings": [TrainingConfig()]}, "settings=1: there are 2 SAEs"),
    ],
)
def test_unusable_training_settings_are_refused(stream, change, problem):
    with pytest.raises(ConfigError) as refused:
        train_pack([TopKSAE(16, 32, k=4), TopKSAE(16, 32, k=4)], stream, **{**SETTINGS, **change})
    assert problem in str(refused.value)


def test_unfit_saes_and_streams_are_refused(stream):
    with pytest.raises(ConfigError, match="d_in=8: the stream's activations are 16 wide"):
        train_pack([TopKSAE(8, 32, k=4)], stream, **SETTINGS)
    with pytest.raises(ConfigError, match="saes=InferenceSAE: is an SAE for inference"):
        train_pack([TopKSAE(16, 32, k=4).for_inference()], stream, **SETTINGS)
    with pytest.raises(TypeError, match="learning_rate"):
        train_pack([TopKSAE(16, 32, k=4)], stream, learning_rate=1)
    nothing = TensorStream(torch.full((60, 16), float("nan")), 60)
    with pytest.raises(TrainingError, match="at step 1"):
        train_pack([TopKSAE(16, 32, k=4)], nothing, **SETTINGS, progress=False)


# studies


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("batches", [False, True])
def test_stitching_equals_the_commands_study(swept, stream, batches):  # noqa: F811
    (study,) = done(swept, "stitch", "batchtopk")
    expected = results(study)
    pair_of = [load_sae(point(swept, f"batchtopk-{size}") / "sae") for size in (32, 48)]
    acts_AD = stream.held_out(150).acts_AD
    pair = stitch(*pair_of, iter(acts_AD.split(40)) if batches else acts_AD)
    for name, value in pair.metrics.items():
        assert value == pytest.approx(expected["metrics"][name], rel=1e-5), name
    assert pair.curves["interpolation"].nmse == pytest.approx(expected["curves"]["interpolation"]["nmse"], rel=1e-5)


def test_saes_that_do_not_fit_are_not_stitched():
    small, large, x_AD = TopKSAE(16, 32, k=4), TopKSAE(16, 48, k=4), torch.randn(10, 16)
    for arguments, change, problem in (
        ((small, TopKSAE(8, 48, k=4), x_AD), {}, "d_in=16: the small SAE has this d_in, but the large SAE has d_in=8"),
        (
            (small, TopKSAE(16, 48, k=4, normalize_input=False), x_AD),
            {},
            "normalization=layer_norm: the small SAE has this normalization, but the large SAE has normalization=none",
        ),
        (
            (small, large, x_AD[:, :8]),
            {},
            "activations=(10, 8): the shape must be (any number, 16), where 16 is d_in of both SAEs",
        ),
        ((small, large, x_AD[:0]), {}, "activations=0: there must be at least one activation"),
        ((small, large, []), {}, "activations=0: there must be at least one activation"),
        ((small, large, x_AD), {"threshold": 2.0}, "stitch.threshold=2.0: must be a cosine"),
    ):
        with pytest.raises(ConfigError) as refused:
            stitch(*arguments, **change)
        assert problem in str(refused.value)


@pytest.fixture(scope="module")
def decomposed(swept):  # noqa: F811
    """Return a study of the command, its metrics, its SAE, and the same decomposition by the library."""
    (study,) = done(swept, "meta_sae", "batchtopk")
    latents = torch.tensor(json.loads((study / "decomposed.json").read_text()))
    sae = load_sae(point(swept, "batchtopk-48") / "sae")
    steps, settings = [], {"latents": latents, "steps": 60, "batch_size": 16}
    meta = MetaSAE.train(sae, **settings, on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 60) for done in range(1, 61)]
    return study, results(study)["metrics"], sae, meta


def test_a_meta_sae_equals_the_commands(decomposed, stream):
    study, expected, sae, meta = decomposed
    assert torch.equal(meta.sae.W_dec, load_file(study / "sae" / "sae_weights.safetensors")["W_dec"])
    assert meta.explained_variance == expected["explained_variance"]
    assert meta.control().explained_variance == expected["explained_variance_shuffled"]
    after = evaluate(meta.replace_directions(sae), stream.model, stream.held_out(150))
    assert (after["nmse"], after["ce_degradation"]) == (expected["nmse_after"], expected["ce_degradation_after"])


def test_meta_latents_and_latents_are_found_in_one_weight_matrix(decomposed):
    *_, sae, meta = decomposed
    weights_AM = meta.weights.to_dense()
    directions_AD = torch.nn.functional.normalize(sae.W_dec[meta.latents_A], dim=1)
    assert torch.equal(meta.directions_AD, directions_AD)
    recon_AD = weights_AM @ meta.sae.W_dec + meta.sae.b_dec
    torch.testing.assert_close(meta.reconstructed_AD, recon_AD)
    left_A = (directions_AD - recon_AD).square().sum(1) / (directions_AD - directions_AD.mean(0)).square().sum(1)
    torch.testing.assert_close(meta.explained_A, 1 - left_A)
    for row, latent in enumerate(meta.latents_A.tolist()):
        parts = meta.find_meta_latents(latent)
        assert parts == sorted(parts, key=lambda part: -part[1])
        assert dict(parts) == {at: weights_AM[row, at].item() for at in weights_AM[row].nonzero().flatten().tolist()}
    column_A = weights_AM[:, 0]
    order = column_A.argsort(descending=True)[: int((column_A > 0).sum())][:3].tolist()
    assert meta.find_latents(0, most=3) == [(int(meta.latents_A[row]), column_A[row].item()) for row in order]


def test_directions_alone_can_be_decomposed_and_unusable_settings_are_refused(decomposed):
    *_, sae, meta = decomposed
    again = MetaSAE.train(3 * sae.W_dec, latents=meta.latents_A, steps=60, batch_size=16)
    assert again.explained_variance == pytest.approx(meta.explained_variance, rel=1e-3)
    left_out = next(latent for latent in range(49) if latent not in meta.latents_A.tolist())
    with pytest.raises(
        KeyError, match=f"latent {left_out} was not decomposed; `latents_A` lists all decomposed latents"
    ):
        meta.find_meta_latents(left_out)
    with pytest.raises(
        ConfigError, match=r"meta\.dict_size=100: .* between 1 and 48, the number of decoder directions"
    ):
        MetaSAE.train(sae, dict_size=100)
    with pytest.raises(ConfigError, match=r"meta\.k=5: is larger than meta.dict_size=4"):
        MetaSAE.train(sae, dict_size=4, k=5)
