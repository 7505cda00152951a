"""The memory of a pack on its device, estimated without torch from what the code holds at once.

Every point has its weights all the time. The points take turns, so they share the rest: the largest of a few phases, of
which each function below counts one. Where numbers depend on the data, a bad case is counted: half of the latents dead,
and half more active entries than at the start, which may make them dense.
"""

# B activations in a batch, D model width, F latents (dict_size), S positions in a sequence, V vocabulary

from collections.abc import Sequence
from statistics import NormalDist

from sae_sweeps.activations.model_info import ModelInfo
from sae_sweeps.config import Config
from sae_sweeps.config.saes import JumpReLUConfig, MatryoshkaConfig, PenaltyConfig, TopKConfig
from sae_sweeps.config.sparsity import resolve_sparsity
from sae_sweeps.runtime.devices import native_dtype, wants_kernels
from sae_sweeps.sweep.point import Point

FLOAT = 4  # bytes per float32 number
BASE = {"cpu": 32e6, "cuda": 0.6e9}  # of the libraries: on CUDA its context, and workspaces of the products
# numbers that the code has as constants as well: saes/encoder.py, saes/sparse.py, saes/penalized.py, saes/topk.py,
# training/fixed_step.py, evaluation/reconstruction.py, evaluation/equal_l0.py and activations/language_model.py
BLOCK = {"cpu": 2**23, "cuda": 2**27}  # entries of the encoder's product at a time
WHOLE_BLOCK = 2**30  # the same number at most in a step of a fixed size, whose memory is its own
DENSE_FROM, DENSE_LIMIT = {"cpu": 0.1, "cuda": 0.05}, 2**29  # share and number of entries of a dense matrix
START = 256  # activations on which thresholds are set to a target L0
SEARCHED = 0.02  # share of the dead latents below which their largest are searched for
EVALUATED = 2048  # activations in a batch of the evaluation
MARGIN = 1.25  # candidates for an L0 of k, in multiples of k
LOGITS = {"cpu": 2**23, "cuda": 2**26}  # elements of the logits at a time
DRAWING = 16 * 2**22  # bytes of a block of activations/planted.py, with what decides what fires in it
MOST_COSINES = 2**30  # of evaluation/recovery.py

# bytes per entry, counted where most of them are held at once
ENTRY = 72  # a kept entry: its place, pre-activation and gradients, by rows and by columns
CANDIDATE = 400  # a kept entry of TopK and BatchTopK, while it is chosen among up to four candidates
POSITIVE = 23  # an entry of a block of which half are candidates, while BatchTopK searches without a first guess
AT_K = 48  # a candidate for an L0 of k: its place and pre-activation, and its group and level as they are sorted
PLANTED = 40  # an active planted feature: its place and value, and those that were joined to it
LOGIT = 20  # a logit, the copy of those that are counted, two logarithms of their softmax, and what compares them
# matrices of all (B, F) entries that a dense step holds at once
DENSE_MATRICES = {"jumprelu": 6.0, "relu": 6.0, "gated": 8.0}
STARTING_L0 = {"jumprelu": 1.0, "relu": 4.0, "gated": 1.0}  # with a target L0, in multiples of it
DEAD = 0.5  # share of dead latents that is counted


def pack_bytes(points: Sequence[Point], facts: ModelInfo, device: str) -> float:
    """Estimate the bytes on the device to train and evaluate a pack, not counting the language model's weights.

    device: type of the device, such as "cpu" or "cuda"
    """
    shared = max(shared_bytes(point.config, facts, device) for point in points)
    more_hooks = len({point.config.model.hook for point in points}) - 1
    hooks = more_hooks * max(hook_bytes(point.config, facts.d_model) for point in points)
    return shared + hooks + sum(point_bytes(point.config, facts.d_model) for point in points)


def point_bytes(config: Config, d_in: int) -> float:
    """Estimate the bytes that a point keeps: two weight matrices, two gradients, four Adam moments. `d_in`: width D"""
    return 4 * 2 * config.dict_size * d_in * FLOAT


def hook_bytes(config: Config, d_in: int) -> float:
    """Estimate the bytes that a second hook adds to a pack: its activations, of a chunk and held out."""
    chunk = config.training.batch_size * config.training.chunk_batches
    return number_bytes(config) * (chunk + config.evaluation.tokens) * d_in


def shared_bytes(config: Config, facts: ModelInfo, device: str) -> float:
    """Estimate the bytes that the points of one hook share: the activations, and the largest phase of the work on them.

    device: type of the device, such as "cpu" or "cuda"
    """
    training, d_in = config.training, facts.d_model
    device = "cpu" if device == "cpu" else "cuda"
    width = number_bytes(config)
    chunk = training.batch_size * training.chunk_batches * d_in
    held_out = config.evaluation.tokens * d_in
    evaluated = width * chunk + 3 * FLOAT * held_out  # the activations, the reconstructions, and their parts
    is_synthetic = config.dataset.is_synthetic
    reading = DRAWING if is_synthetic else _forward_bytes(config, facts, device)
    measuring = _recovery_bytes(config) if is_synthetic else reading + _logit_bytes(config, facts, device)
    phases = (
        width * chunk + reading,
        (width + 3 * FLOAT) * chunk,  # the first step centers and normalises the chunk, and measures its spread
        width * chunk + _step_bytes(config, d_in, device),
        evaluated + measuring,
        evaluated + 4 * FLOAT * held_out,  # squares in float64
        evaluated + _block_bytes(config, EVALUATED, device, FLOAT) + CANDIDATE * EVALUATED * config.k,
        evaluated + _candidates_bytes(config),
    )
    planted = _planted_bytes(config) if is_synthetic else 0.0
    return BASE[device] + planted + 2 * width * held_out + max(phases) + _fixed_step_bytes(config, d_in, device)


def _planted_bytes(config: Config) -> float:
    """Estimate the bytes of a planted dictionary, and of the features that are active in held-out activations."""
    synthetic = config.synthetic
    shared = synthetic.correlation_rank if synthetic.correlation else 1
    return FLOAT * synthetic.features * (synthetic.dim + shared) + PLANTED * synthetic.active * config.evaluation.tokens


def _recovery_bytes(config: Config) -> float:
    """Estimate the cosines of planted features and latents in float64, and the copy in which latents are assigned."""
    return min(16.0 * config.synthetic.features * config.dict_size, 16.0 * MOST_COSINES) + DRAWING


def _fixed_step_bytes(config: Config, d_in: int, device: str) -> float:
    """Estimate the memory of steps that a GPU repeats as a graph, which nothing else uses; all points share it."""
    entries = config.training.batch_size * config.dict_size
    if device == "cpu" or not wants_kernels() or entries > WHOLE_BLOCK:
        return 0.0
    rows, matrix = config.training.batch_size * d_in * FLOAT, config.dict_size * d_in * FLOAT
    return 2 * entries + CANDIDATE * config.training.batch_size * config.k + matrix / 2 + 8 * rows


def _candidates_bytes(config: Config) -> float:
    """Estimate the entries of all held-out activations among which those at an L0 of k are, while they are sorted."""
    if config.sae.architecture == "topk":
        return 0.0
    return AT_K * MARGIN * config.k * config.evaluation.tokens


def number_bytes(config: Config) -> int:
    """Return the bytes of a number that the language model computes, and of an activation that is kept."""
    return FLOAT if config.model.dtype == "float32" else FLOAT // 2


def _forward_bytes(config: Config, facts: ModelInfo, device: str) -> float:
    """Estimate the activations of a transformer block for one batch of sequences: its MLP's, or its attention's."""
    seq_len, d_model = config.dataset.seq_len, facts.d_model
    per_token = 16 * d_model + 4 * seq_len * max(1, d_model // 64)  # attention heads have a width of about 64
    return config.model.sequences_per_pass(device, seq_len) * seq_len * per_token * number_bytes(config)


def _logit_bytes(config: Config, facts: ModelInfo, device: str) -> float:
    sequence = config.dataset.seq_len * facts.vocabulary
    at_once = min(config.model.sequences_per_pass(device, config.dataset.seq_len) * sequence, LOGITS[device])
    return max(at_once, sequence) * LOGIT


def _step_bytes(config: Config, d_in: int, device: str) -> float:
    """Estimate the working memory of a training step; a checkpoint that is checked to be finite takes no more."""
    sae, batch, dict_size = config.sae, config.training.batch_size, config.dict_size
    precision = config.training.precision
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" else native_dtype("cpu")
    rows, matrix = batch * d_in * FLOAT, dict_size * d_in * FLOAT
    held = 4.0 * rows  # the batch, normalised and as the encoder's input; the error and its gradient
    if precision == "bfloat16":
        held += (rows + matrix) / 2  # both factors of the product
    backward = 3 * rows + _entries_bytes(config, d_in, device)
    if isinstance(sae, MatryoshkaConfig):
        backward += 3 * rows * len(sae.prefixes)
    if isinstance(sae, TopKConfig) and sae.aux_coefficient > 0:
        auxiliary = rows + _dead_bytes(sae, batch, dict_size, d_in, device)
        if config.training.aux_residual_gradient:  # the auxiliary loss is held, but its gradients come later
            backward += auxiliary - 2 * round(DEAD * dict_size) * d_in * FLOAT
        backward = max(backward, auxiliary)
    selection = _selection_bytes(config, d_in, device, precision)
    finite = 1.75 * matrix  # a copy of the largest tensor, and three masks
    return max(held + max(selection, backward), finite)


def _selection_bytes(config: Config, d_in: int, device: str, precision: str) -> float:
    """Estimate a block of the encoder's product, with what the search for the active entries needs beside it."""
    sae, batch, dict_size = config.sae, config.training.batch_size, config.dict_size
    rounding = dict_size * d_in * (4 if device == "cuda" else 2) if precision == "bfloat16" else 0
    block = _block_bytes(config, batch, device, 2 if precision == "bfloat16" else FLOAT)
    if not isinstance(sae, PenaltyConfig):
        unguided = 0 if sae.architecture == "topk" else POSITIVE * min(batch * dict_size, BLOCK[device])
        return max(rounding, unguided, block + CANDIDATE * batch * config.k)
    # a CPU sorts them; a point has no gradients and moments yet
    started = min(START, batch) * dict_size * (24 if device == "cpu" else 12) - 0.75 * point_bytes(config, d_in)
    return max(rounding, started, block + _entries_bytes(config, d_in, device))


def _block_bytes(config: Config, batch: int, device: str, width: int) -> float:
    """Estimate a block of the product and a mask of it. `width`: bytes of a number"""
    return min(batch * config.dict_size, max(BLOCK[device], config.dict_size)) * (width + 1)


def _entries_bytes(config: Config, d_in: int, device: str) -> float:
    """Estimate the kept entries of a batch with their gradients: sparse, or all entries where many are active."""
    sae, batch = config.sae, config.training.batch_size
    if not isinstance(sae, PenaltyConfig):
        return ENTRY * batch * config.k
    entries = batch * config.dict_size
    share = _active_share(config, d_in)
    if entries > DENSE_LIMIT or share <= DENSE_FROM[device]:
        return ENTRY * entries * share
    return DENSE_MATRICES[sae.architecture] * entries * FLOAT


def _active_share(config: Config, d_in: int) -> float:
    """Estimate the share of active entries in the first batches of an SAE with a penalty, where it is largest.

    With `absolute_threshold`, it may be larger later, and is at least that of k active latents.
    """
    sae, dict_size = config.sae, config.dict_size
    assert isinstance(sae, PenaltyConfig), "the caller has checked it"
    ((name, value),) = resolve_sparsity(config).items()
    if name == "target_l0":
        share = STARTING_L0[sae.architecture] * value / dict_size
    elif isinstance(sae, JumpReLUConfig) and sae.absolute_threshold is not None:
        deviation = (2 * d_in / dict_size) ** 0.5  # of an untrained pre-activation, see TrainableSAE
        share = max(NormalDist().cdf(-sae.absolute_threshold / deviation), config.k / dict_size)
    else:
        share = NormalDist().cdf(-sae.initial_threshold)
    return min(1.0, 1.5 * share)  # it varies from batch to batch


def _dead_bytes(sae: TopKConfig, batch: int, dict_size: int, d_in: int, device: str) -> float:
    """Estimate the auxiliary loss: weights and gradients of the dead latents, and their entries."""
    dead = round(DEAD * dict_size)
    kept = min(sae.aux_latents, dead)
    weights = 3 * dead * d_in * FLOAT
    if sae.aux_latents < SEARCHED * dead or batch * dead > DENSE_LIMIT:
        return weights + CANDIDATE * batch * kept
    few = min(dead, round(sae.aux_latents / DENSE_FROM[device]))  # with more dead latents the entries are sparse
    return weights + max(4.25 * batch * few * FLOAT, batch * dead * FLOAT + ENTRY * batch * kept)
