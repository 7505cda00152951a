"""The class of saved SAEs, of every architecture and library: for use, not for training."""

# D model width, F latents (dict_size)

import torch
from torch import Tensor, nn

from sae_sweeps.saes.base import NORMALIZATIONS, SAE
from sae_sweeps.saes.encoder import Product, keep_above, keep_top_per_row
from sae_sweeps.saes.sparse import RowSparse

WEIGHTS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold", "gain", "shift")


class InferenceSAE(SAE):
    """pre = (x - b_dec, or x) @ W_enc^T + b_enc; active are the `k` largest positive ones, or all above `threshold`.

    A latent's activation is pre itself or, in a gated SAE, relu(gain * pre + shift). There pre decides whether the
    latent is active, and its activation is another affine function of the same product (arXiv:2404.16014, equation 7).
    BatchTopK has the same threshold for all latents, ReLU thresholds of 0. An architecture with another selection rule
    overrides `keep_for_inference` in a subclass, its `TrainableSAE.inference_class`.

    Shapes: W_enc and W_dec (F, D), b_enc, threshold, gain and shift (F,), b_dec (D,).
    """

    threshold: Tensor | None
    gain: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        architecture: str,
        *,
        W_enc: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
        b_enc: Tensor | None = None,
        k: int | None = None,
        threshold: Tensor | None = None,
        gain: Tensor | None = None,
        shift: Tensor | None = None,
        centers_input: bool,
        normalization: str = "none",
    ) -> None:
        """Check and copy the weights.

        Raises: ValueError if shapes do not fit, a number is not finite, or settings contradict each other.
        """
        super().__init__()
        given = (W_enc, W_dec, b_enc, b_dec, threshold, gain, shift)
        weights = dict(zip(WEIGHTS, given, strict=True))
        _check_weights(weights)
        if (k is None) == (threshold is None) or (gain is None) != (shift is None):
            raise ValueError("an SAE has either a k or thresholds, and gain and shift together or not at all")
        if k is not None and not 0 < k <= len(W_dec):
            raise ValueError(f"k is {k}, of {len(W_dec)} latents")
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalises activations by {normalization!r}, which is none of {NORMALIZATIONS}")
        for name, weight in weights.items():
            kept = None if weight is None else nn.Parameter(weight.detach().float().contiguous(), requires_grad=False)
            self.register_parameter(name, kept)
        self.architecture, self.k = architecture, k
        self.centers_input, self.normalization = centers_input, normalization

    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select the k largest entries or those above the thresholds, and apply the gate's gain and shift."""
        if self.threshold is None:
            assert self.k is not None, "an SAE without thresholds has a k"
            kept = keep_top_per_row(product, self.k)
        else:
            found = keep_above(product, self.threshold)
            assert found is not None, "there is no upper limit"
            kept = found
        if self.gain is not None and self.shift is not None:
            kept.value = (kept.gather(self.gain) * kept.pre + kept.gather(self.shift)).relu()
        return kept

    def encoder_bias(self, *, centered: bool) -> Tensor:
        """Return the bias (F,) that gives the same pre-activations for the input x - b_dec (`centered`) or x."""
        b_enc_F = torch.zeros_like(self.W_dec[:, 0]) if self.b_enc is None else self.b_enc.detach()
        return b_enc_F + (int(centered) - int(self.centers_input)) * (self.W_enc.detach() @ self.b_dec.detach())


def convert_gate(r_mag_F: Tensor, b_gate_F: Tensor, b_mag_F: Tensor) -> dict[str, Tensor]:
    """Convert a gated SAE's parameters, as in arXiv:2404.16014, to the arguments of InferenceSAE."""
    gain_F = r_mag_F.exp()
    threshold_F = torch.zeros_like(b_gate_F)
    return {"b_enc": b_gate_F, "threshold": threshold_F, "gain": gain_F, "shift": b_mag_F - gain_F * b_gate_F}


def _check_weights(weights: dict[str, Tensor | None]) -> None:
    """Check shapes and that all numbers are finite. Raises: ValueError, naming the weight."""
    W_dec = weights["W_dec"]
    if W_dec is None or W_dec.ndim != 2:
        raise ValueError("W_dec is not a matrix")
    dict_size, d_in = W_dec.shape
    for name, weight in weights.items():
        if weight is None:
            continue
        shape = {"W_enc": (dict_size, d_in), "W_dec": (dict_size, d_in), "b_dec": (d_in,)}.get(name, (dict_size,))
        if tuple(weight.shape) != shape:
            problem = f"{name} has the shape {tuple(weight.shape)}, and {shape} goes with"
            raise ValueError(f"{problem} {dict_size} latents of activations {d_in} wide")
        if not weight.isfinite().all():
            raise ValueError(f"{name} has numbers that are not finite, {int((~weight.isfinite()).sum())} of them")
