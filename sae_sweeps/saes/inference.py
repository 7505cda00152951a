"""InferenceSAE, the class of saved SAEs of every architecture and library: for use, not for training."""

# D model width, F latents (dict_size)

import torch
from torch import Tensor, nn

from sae_sweeps.saes.base import NORMALIZATIONS, SAE
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.selection import keep_above, keep_top_per_row
from sae_sweeps.saes.sparse import Entries, RowSparse

WEIGHTS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold", "gain", "shift")
PER_LATENT = ("relu", "jumprelu", "gated")  # architectures whose latents are selected independently of each other
PER_LATENT_WEIGHTS = ("b_enc", "threshold", "shift")  # in the unit of pre-activations or activations


class InferenceSAE(SAE):
    """pre = input @ W_enc^T + b_enc; the `k` largest positive pre-activations are active, or all above `threshold`.

    The input is x - b_dec if `centers_input` is set, otherwise x. A latent's activation is pre itself or, in a gated
    SAE, relu(gain * pre + shift): pre decides whether the latent is active, and the activation is another affine
    function of the same product (arXiv:2404.16014, equation 7). BatchTopK has the same threshold for all latents, ReLU
    thresholds of 0. An architecture with another selection rule overrides `keep_for_inference` in a subclass, and names
    the subclass as `TrainableSAE.inference_class`.

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
        """Check the weights and register float32 parameters without gradients.

        Raises: ValueError if the weights' shapes do not fit together, a number is not finite, `k` or `normalization`
        is out of range, or not exactly one of `k` and `threshold`, or only one of `gain` and `shift`, is given.
        """
        super().__init__()
        given = (W_enc, W_dec, b_enc, b_dec, threshold, gain, shift)
        weights = dict(zip(WEIGHTS, given, strict=True))
        _check_weights(weights)
        if (k is None) == (threshold is None) or (gain is None) != (shift is None):
            raise ValueError("exactly one of k and threshold must be given, and either both gain and shift or neither")
        if k is not None and not 0 < k <= len(W_dec):
            raise ValueError(f"k must be between 1 and {len(W_dec)}, the number of latents, but it is {k}")
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, but it is {normalization!r}")
        for name, weight in weights.items():
            kept = None if weight is None else nn.Parameter(weight.detach().float().contiguous(), requires_grad=False)
            self.register_parameter(name, kept)
        self.architecture, self.k = architecture, k
        self.centers_input, self.normalization = centers_input, normalization

    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select each activation's `k` largest pre-activations, or the pre-activations above the latents' thresholds.

        In a gated SAE, the activations of the selected entries are computed with gain and shift.
        """
        if self.threshold is None:
            assert self.k is not None, "an SAE without thresholds has a k"
            kept = keep_top_per_row(product, self.k)
        else:
            found = keep_above(product, self.threshold)
            assert found is not None, "keep_above returns entries if no `at_most` is given"
            kept = found
        kept.value = self.activate(kept)
        return kept

    def activate(self, entries: Entries) -> Tensor:
        """Return the activations of selected entries: their pre-activations, or a gated SAE's magnitudes."""
        if self.gain is None or self.shift is None:
            return entries.pre
        return (entries.gather(self.gain) * entries.pre + entries.gather(self.shift)).relu()

    def describe_sparsity(self) -> str:
        """Return what sets the number of active latents, for `repr`: k, or the range of the latents' thresholds."""
        if self.threshold is None:
            return super().describe_sparsity()
        least, most = self.threshold.min().item(), self.threshold.max().item()
        return f"threshold={least:.3g}" if least == most else f"threshold={least:.3g} to {most:.3g}"

    def encoder_bias(self, *, centered: bool) -> Tensor:
        """Return the bias (F,) that gives the same pre-activations for an encoder input of x - b_dec or x.

        `centered` means the input x - b_dec.
        """
        b_enc_F = torch.zeros_like(self.W_dec[:, 0]) if self.b_enc is None else self.b_enc.detach()
        return b_enc_F + (int(centered) - int(self.centers_input)) * (self.W_enc.detach() @ self.b_dec.detach())

    def has_unit_rows(self) -> bool:
        """Return whether all decoder rows have norm 1, up to the rounding of training."""
        return bool((self.W_dec.norm(dim=1) - 1).abs().max() < 1e-3)

    def with_unit_rows(self) -> "InferenceSAE | None":
        """Return an SAE with decoder rows of norm 1 that computes the same reconstructions and active latents.

        The norms are multiplied into the encoder, the thresholds and so the activations. Rows of zeros stay as they
        are. None if that would change which latents are active, or give one threshold for all latents several values.
        """
        if type(self) is not InferenceSAE or self.threshold is None or self.architecture not in PER_LATENT:
            return None
        norm_F = self.W_dec.norm(dim=1)
        norm_F = torch.where(norm_F > 0, norm_F, 1)
        scaled = {name: weight * norm_F for name in PER_LATENT_WEIGHTS if (weight := getattr(self, name)) is not None}
        return InferenceSAE(
            self.architecture,
            W_enc=self.W_enc * norm_F[:, None],
            W_dec=self.W_dec / norm_F[:, None],
            b_dec=self.b_dec,
            **scaled,
            gain=self.gain,
            centers_input=self.centers_input,
            normalization=self.normalization,
        )


def convert_gate(r_mag_F: Tensor, b_gate_F: Tensor, b_mag_F: Tensor) -> dict[str, Tensor]:
    """Convert a gated SAE's parameters as in arXiv:2404.16014, each (F,), to keyword arguments of InferenceSAE.

    Returns: b_enc, threshold, gain and shift, each (F,).
    """
    gain_F = r_mag_F.exp()
    threshold_F = torch.zeros_like(b_gate_F)
    return {"b_enc": b_gate_F, "threshold": threshold_F, "gain": gain_F, "shift": b_mag_F - gain_F * b_gate_F}


def _check_weights(weights: dict[str, Tensor | None]) -> None:
    """Check that all weights fit the shape (F, D) of W_dec and are finite; a weight may be None, except W_dec.

    Raises: ValueError that names the first weight with a problem.
    """
    W_dec = weights["W_dec"]
    if W_dec is None or W_dec.ndim != 2:
        raise ValueError("W_dec must be a matrix of one row per latent, but it is missing or has another shape")
    dict_size, d_in = W_dec.shape
    for name, weight in weights.items():
        if weight is None:
            continue
        shape = {"W_enc": (dict_size, d_in), "W_dec": (dict_size, d_in), "b_dec": (d_in,)}.get(name, (dict_size,))
        if tuple(weight.shape) != shape:
            problem = f"{name} has the shape {tuple(weight.shape)}, but the shape must be {shape}"
            raise ValueError(f"{problem} for {dict_size} latents and activations of width {d_in}")
        if not weight.isfinite().all():
            raise ValueError(
                f"{name} must hold only finite numbers, "
                f"but {int((~weight.isfinite()).sum())} of {weight.numel()} are not"
            )
