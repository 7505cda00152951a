"""What a notebook gives is taken, or refused at the door in one line that names it and a fix."""

import inspect
import warnings
from importlib.metadata import version

import numpy
import pytest
import torch

import sae_sweeps
from sae_sweeps import (
    BatchTopKSAE,
    DatasetConfig,
    JumpReLUSAE,
    MatryoshkaSAE,
    MetaSAE,
    TensorStream,
    TopKSAE,
    TrainingConfig,
    evaluate,
    load_sae,
    save_sae,
    stitch,
    train_pack,
)
from sae_sweeps.config.saes import ARCHITECTURES
from sae_sweeps.runtime import inputs
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.saes import TRAINABLE

X = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
SMALL, LARGE = TopKSAE(16, 32, k=4), BatchTopKSAE(16, 48, k=4)
SHORT = {"tokens": 60, "batch_size": 30, "progress": False}
NAN = X.clone()
NAN[3, 2] = torch.nan


def stream() -> TensorStream:
    return TensorStream(X, 30)


CALLS = {  # a wrong call -> the beginning of the error
    "wrong width": (lambda: SMALL.encode(X[:, :8]), "acts=(60, 8): the shape must be (..., 16), where 16 is d_in"),
    "a list of numbers": (lambda: SMALL([[0.0] * 16]), "acts=list of 1: must be a tensor or a numpy array of shape"),
    "token ids": (lambda: SMALL.encode(torch.arange(16)), "acts=int64: must be activations, floating-point numbers"),
    "NaN": (lambda: SMALL(NAN), "acts=(60, 16): must be finite, but 1 of 960 numbers are NaN or infinite"),
    "sparse": (lambda: SMALL(X.to_sparse()), "acts=torch.sparse_coo: must be a dense tensor"),
    "latents alone": (lambda: SMALL.decode(SMALL.encode(X)), "acts=None: must be given, because this SAE normalises"),
    "fewer activations": (lambda: SMALL.decode(SMALL.encode(X), X[:9]), "acts=(9, 16): must be as many activations"),
    "activations decoded": (lambda: SMALL.decode(X, X), "latents=(60, 16): the shape must be (..., 32), where 32 is d"),
    "sequences": (lambda: TensorStream(X[None], 9), "acts=(1, 60, 16): the shape must be (any number, width)"),
    "one activation": (lambda: TensorStream(X[0], 9), "acts=(16,): the shape must be (any number, width)"),
    "no activations": (lambda: TensorStream(X[:0], 9), "acts=(0, 16): has no activations"),
    "NaN in a stream": (lambda: TensorStream(NAN, 9), "acts=(60, 16): must be finite, but 1 of 960"),
    "a large batch": (lambda: TensorStream(X, 61), "batch_size=61: must be at most the number of activations, 60"),
    "batchsize": (
        lambda: TensorStream(X, batchsize=9),
        "batchsize=9: TensorStream has no such option. Fix: did you me",
    ),
    "k above": (lambda: TopKSAE(16, 32, k=33), "k=33: must be at most dict_size=32"),
    "k of JumpReLU above": (lambda: JumpReLUSAE(16, 32, k=33), "k=33: must be at most dict_size=32"),
    "k below": (lambda: TopKSAE(16, 32, k=0), "k=0: must be at least 1"),
    "a share as k": (lambda: JumpReLUSAE(16, 32, 0.01), "k=0.01: must be a whole number"),
    "text as k": (lambda: TopKSAE(16, 32, k="4"), "k='4': must be a whole number"),
    "no latents": (lambda: TopKSAE(16, 0, k=1), "dict_size=0: must be at least 1"),
    "a text as a flag": (lambda: TopKSAE(16, 32, 4, normalize_input="none"), "normalize_input=none: must be True or"),
    "normalise_input": (lambda: TopKSAE(16, 32, 4, normalise_input=False), "normalise_input=False: TopKSAE has no suc"),
    "momentum": (lambda: BatchTopKSAE(16, 32, 4, threshold_momentum=2), "threshold_momentum=2: must be in [0, 1)"),
    "one prefix": (lambda: MatryoshkaSAE(16, 32, 4, prefixes=0.5), "prefixes=0.5: must be fractions of dict_size"),
    "prefixes": (lambda: MatryoshkaSAE(16, 32, 4, prefixes=[0.5]), "prefixes=[0.5]: must be increasing fractions of d"),
    "bandwidth": (lambda: JumpReLUSAE(16, 32, 4, bandwidth="wide"), "bandwidth='wide': must be a number"),
    "SAEs evaluated": (lambda: evaluate([SMALL, LARGE], X), "sae=list of 2: must be an SAE"),
    "a folder evaluated": (lambda: evaluate("my/sae", X), "sae=my/sae: must be an SAE. Fix: load_sae(FOLDER)"),
    "nothing to evaluate on": (lambda: evaluate(SMALL), "data=None: must be activations"),
    "a stream to evaluate on": (lambda: evaluate(SMALL, stream()), "data=TensorStream: must be activations"),
    "two tensors": (lambda: evaluate(SMALL, X, X), "model=Tensor of shape (60, 16): must be a language model"),
    "sequences evaluated": (lambda: evaluate(SMALL, X[None]), "acts=(1, 60, 16): the shape must be (any number, 16)"),
    "none evaluated": (lambda: evaluate(SMALL, X[:0]), "acts=0: there must be at least one activation"),
    "a tensor as stream": (lambda: train_pack(SMALL, X, **SHORT), "stream=Tensor of shape (60, 16): must be an Activ"),
    "names as SAEs": (lambda: train_pack("topk", stream(), **SHORT), "saes=topk: must be an SAE, or a list of SAEs"),
    "None among SAEs": (lambda: train_pack([SMALL, None], stream(), **SHORT), "saes=None: must be SAEs"),
    "twice": (lambda: train_pack([SMALL, SMALL], stream(), **SHORT), "saes[1]=TopKSAE(d_in=16, dict_size=32, k=4): is"),
    "learning_rate": (lambda: train_pack(SMALL, stream(), learning_rate=1), "learning_rate=1: train_pack has no such"),
    "lr as text": (lambda: train_pack(SMALL, stream(), **SHORT, lr="fast"), "training.lr=fast: must be a number"),
    "one beta": (lambda: train_pack(SMALL, stream(), **SHORT, betas=0.9), "training.betas=0.9: must be a list of num"),
    "parts": (lambda: train_pack(SMALL, stream(), tokens=6.5, batch_size=1), "training.tokens=6.5: must be a whole n"),
    "a dict": (lambda: train_pack(SMALL, stream(), {"tokens": 60}), "settings=dict of 1: must be a TrainingConfig"),
    "SAEs stitched": (lambda: stitch([SMALL], LARGE, X), "small=list of 1: must be one SAE"),
    "a number as activations": (lambda: stitch(SMALL, LARGE, 5), "activations=5: must be a tensor or numpy array of"),
    "a narrow batch": (lambda: stitch(SMALL, LARGE, [X, X[:, :3]]), "activations=(60, 3): the shape must be (any num"),
    "treshold": (lambda: stitch(SMALL, LARGE, X, treshold=0.5), "treshold=0.5: stitch has no such option. Fix: did y"),
    "a list decomposed": (lambda: MetaSAE.train([SMALL]), "sae=list of 1: must be a tensor or a numpy array of sha"),
    "a mask": (lambda: MetaSAE.train(SMALL, latents=torch.ones(32).bool()), "latents=Tensor of shape (32,): must be"),
    "latent 32": (lambda: MetaSAE.train(SMALL, latents=[1, 32]), "latents=32: must be at most the last latent, 31"),
    "SAEs saved": (lambda: save_sae([SMALL], "there"), "sae=list of 1: must be one SAE"),
    "swapped": (lambda: save_sae("there", SMALL), "sae=there: must be one SAE"),
    "not a stream": (lambda: save_sae(SMALL, "there", stream()), "stream=TensorStream: must be an ActivationStream"),
    "no folder": (lambda: load_sae(None), "spec=None: must be a folder"),
    "a device": (lambda: load_sae("there", device="gpu"), "device=gpu: cannot be used"),
    "batchsize of settings": (lambda: TrainingConfig(batchsize=1), "batchsize=1: TrainingConfig has no such option"),
    "file": (lambda: DatasetConfig(file="a.txt"), "file=a.txt: DatasetConfig has no such option. Fix: did you mean fi"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_is_refused_in_one_line_with_a_fix(call):
    wrong, beginning = CALLS[call]
    with pytest.raises(ConfigError) as refused:
        wrong()
    message = str(refused.value)
    assert message.startswith(beginning)
    assert ". Fix: " in message
    assert "\n" not in message


def test_an_unknown_option_is_a_type_error_and_none_that_is_similar_lists_all():
    with pytest.raises(TypeError, match=r"Fix: one of saes, stream, settings, tokens, batch_size, lr, betas"):
        train_pack(SMALL, stream(), learning_rate=1)
    with pytest.raises(FileNotFoundError, match=r"nowhere: there is no such folder\. Fix: give the folder of an SAE"):
        load_sae("nowhere")


@pytest.mark.parametrize(
    "give", [torch.Tensor.numpy, torch.Tensor.double, lambda x: x.numpy().astype(">f8")[::-1][::-1]]
)
def test_arrays_and_float64_are_taken_and_float64_is_warned_of_once(give):
    given = give(X)
    inputs._warn_of_narrowing.cache_clear()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert torch.equal(SMALL.encode(given), SMALL.encode(X))
        assert torch.equal(TensorStream(given, 30).chunk(1), stream().chunk(1))
        assert evaluate(SMALL, given) == evaluate(SMALL, X)
        assert stitch(SMALL, LARGE, given).metrics == stitch(SMALL, LARGE, X).metrics
        assert torch.equal(MetaSAE.train(given, steps=2).sae.W_dec, MetaSAE.train(X, steps=2).sae.W_dec)
    is_wide = str(given.dtype).removeprefix("torch.").endswith(("64", "f8"))
    assert [str(one.message) for one in shown].count(inputs.NARROWED) == is_wide


def test_half_precision_is_kept_in_a_stream_and_computed_with_in_float32():
    half = X.half()
    assert TensorStream(half, 30).chunk(0).dtype == torch.float16
    assert torch.equal(SMALL(half), SMALL(half.float()))


@pytest.mark.parametrize("shape", [(16,), (0, 16), (3, 20, 16), (2, 0, 16)])
def test_leading_dimensions_are_kept(shape):
    x = torch.randn(shape)
    z = SMALL.encode(x)
    assert (z.shape, SMALL(x).shape) == ((*shape[:-1], 32), shape)
    torch.testing.assert_close(SMALL.decode(z, x), SMALL(x))
    rows = [SMALL.encode(row[None])[0] for row in x.reshape(-1, 16)]
    torch.testing.assert_close(z.reshape(-1, 32), torch.stack(rows) if rows else torch.zeros(0, 32))


def test_an_sae_without_normalisation_decodes_latents_alone():
    sae = TopKSAE(16, 32, k=4, normalize_input=False)
    with torch.no_grad():
        expected = sae.encode(X) @ sae.W_dec + sae.b_dec
    torch.testing.assert_close(sae.decode(sae.encode(X).numpy()), expected)


def test_activations_alone_give_the_metrics_without_a_language_model():
    x_hat = SMALL(X)
    metrics = evaluate(SMALL, X)
    nmse = ((X - x_hat).square().sum(1) / (X - X.mean(1, keepdim=True)).square().sum(1)).mean().item()
    fvu = ((X - x_hat).square().sum() / (X - X.mean(0)).square().sum()).item()
    assert (metrics["nmse"], metrics["fvu"], metrics["l0"]) == pytest.approx((nmse, fvu, 4), rel=1e-5)
    assert metrics["dead_fraction"] == (SMALL.encode(X) > 0).any(0).logical_not().float().mean().item()
    assert metrics["held_out_tokens"] == 60
    assert not [name for name in metrics if name.startswith("ce_")]
    assert evaluate(SMALL, data=X) == metrics


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_constructors_name_all_options_with_the_defaults_of_the_settings(name):
    parameters = inspect.signature(TRAINABLE[name]).parameters
    assert list(parameters)[:3] == ["d_in", "dict_size", "k"]
    schema = ARCHITECTURES[name].schema(architecture=name)
    options = {one: value for one, value in vars(schema).items() if one != "architecture"}
    given = {one: parameters[one].default for one in list(parameters)[3:]}
    assert given == {"seed": 0, **{one: tuple(v) if isinstance(v, list) else v for one, v in options.items()}}
    assert repr(TRAINABLE[name](16, 32, 4)) == f"{ARCHITECTURES[name].class_name}(d_in=16, dict_size=32, k=4)"


@pytest.mark.parametrize("called", [train_pack, stitch, evaluate, load_sae, save_sae, MetaSAE.train, TensorStream])
def test_no_public_function_hides_its_options(called):
    kinds = {parameter.kind for parameter in inspect.signature(called).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


def test_what_a_notebook_shows_of_an_object_names_its_sizes():
    assert repr(SMALL.for_inference()) == "InferenceSAE(topk, d_in=16, dict_size=32, k=4)"
    assert repr(LARGE.for_inference()) == "InferenceSAE(batchtopk, d_in=16, dict_size=48, threshold=0)"
    assert repr(JumpReLUSAE(16, 32, target_l0=2.5)) == "JumpReLUSAE(d_in=16, dict_size=32, target_l0=2.5)"
    fixed = JumpReLUSAE(16, 32, 4, sparsity_coefficient=0.1)
    assert repr(fixed) == "JumpReLUSAE(d_in=16, dict_size=32, sparsity_coefficient=0.1)"
    assert repr(stream()) == "TensorStream(60 activations, d_in=16, chunk_size=60)"
    assert repr(MetaSAE.train(SMALL, steps=1)) == "MetaSAE(32 directions, 8 meta-latents, k=4)"
    assert repr(stitch(SMALL, LARGE, X)).endswith(" of these novel, 60 activations)")
    assert sae_sweeps.__version__ == version("sae-sweeps")


def test_numbers_of_numpy_and_whole_floats_are_taken():
    sizes = numpy.array([16, 32, 4])
    sae = TopKSAE(*sizes, seed=numpy.int64(1))
    assert torch.equal(sae.W_enc, TopKSAE(16, 32, 4, seed=1).W_enc)
    (curve,) = train_pack(sae, stream(), tokens=6e1, batch_size=sizes[0] - 1, lr=numpy.float32(0.5), progress=False)
    assert curve[-1]["tokens"] == 60
    assert curve[-1]["lr"] == 0.5
