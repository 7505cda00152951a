"""Base class of the SAEs that are trained here: their initialisation and their training step."""

# B activations in a batch, D model width, F latents (dict_size), M dead latents, N kept entries

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sae_sweeps.config.saes import SAEConfig
from sae_sweeps.runtime.inputs import require_type, require_whole
from sae_sweeps.saes.base import SAE
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.initial import DRAWN, draw_weights
from sae_sweeps.saes.options import require_options
from sae_sweeps.saes.room import Room
from sae_sweeps.saes.sparse import Entries, LatentEntries
from sae_sweeps.saes.step import (
    AuxiliaryFit,
    AuxiliaryGradients,
    EntryGradients,
    Fit,
    Step,
    StepGradients,
    Variant,
)

USUAL = Variant()


class TrainableSAE(SAE):
    """An SAE whose loss and gradients `compute_gradients` computes by hand on the kept entries (see `sparse.py`).

    `normalize_rows` keeps the rows of W_dec at unit norm.

    An encoder that does not subtract b_dec subtracts the constant `input_center` (D,) instead, zero until `center` sets
    it. `for_inference` moves it into b_enc. Without it, each step of Adam would move all pre-activations together, by
    an amount that grows with the mean activation, and silence most latents.
    """

    inference_class: ClassVar[type[InferenceSAE]] = InferenceSAE  # a subclass for another selection rule
    aux_coefficient: float = 0.0  # weight of the auxiliary loss on dead latents
    fits_room: ClassVar[bool] = True  # whether a step can keep to memory of a fixed size (`Room`)
    has_bias: ClassVar[bool]  # whether the encoder has a bias b_enc
    input_center: Tensor

    def __init__(
        self, d_in: int, dict_size: int, *, normalize_input: bool = SAEConfig.normalize_input, seed: int = 0
    ) -> None:
        """Initialise W_enc at random from `seed`, W_dec as the normalised rows of W_enc, and the biases as 0.

        With `normalize_input`, each activation is normalised to mean 0 and standard deviation 1 over D.
        Raises: ConfigError if an argument is out of range.
        """
        super().__init__()
        d_in, dict_size = require_whole("d_in", d_in, 1), require_whole("dict_size", dict_size, 1)
        seed = require_whole("seed", seed, 0)
        require_type("normalize_input", normalize_input, bool, "True or False", "normalize_input=False")
        generator = torch.Generator().manual_seed(seed)
        W_enc_DF = torch.empty(d_in, dict_size)
        nn.init.kaiming_uniform_(W_enc_DF, generator=generator)  # columns of norm sqrt(2 D / F)
        self.W_enc = nn.Parameter(W_enc_DF.T.contiguous())
        self.W_dec = nn.Parameter(nn.functional.normalize(self.W_enc.detach(), dim=1))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_parameter("b_enc", nn.Parameter(torch.zeros(dict_size)) if self.has_bias else None)
        if not self.centers_input:
            self.register_buffer("input_center", torch.zeros(d_in))
        self.normalization = "layer_norm" if normalize_input else "none"
        self._seed = seed

    @property
    def inference_threshold(self) -> Tensor | None:
        """Return the threshold above which latents are active at inference, () or (F,); None if there is none."""
        return getattr(self, "threshold", None)

    def encoder_input(self, x_BD: Tensor) -> Tensor:
        """Return the encoder's input (B, D): normalised activations (B, D), minus b_dec or `input_center`."""
        return x_BD - (self.b_dec if self.centers_input else self.input_center)

    @torch.no_grad()
    def center(self, mean_D: Tensor) -> None:
        """Set b_dec to the mean activation, so that the encoder encodes the deviations from it.

        `mean_D` (D,) is the mean of normalised activations.
        """
        self.b_dec.copy_(mean_D)
        if self.b_enc is not None and not self.centers_input:
            self.input_center.copy_(mean_D)

    @property
    def initial_k(self) -> float | None:
        """Return the L0 to start from; None if `initial_threshold` gives it."""
        return getattr(self, "k", None)

    @torch.no_grad()
    def start_from(self, x_AD: Tensor) -> None:
        """Set the weights from normalised activations (A, D), after `center`; leave them if the activations are equal.

        See `initial.py`.
        """
        centered_AD, threshold = self.encoder_input(x_AD[:DRAWN]), getattr(self, "initial_threshold", 0.0)
        drawn = draw_weights(centered_AD, self.W_dec.detach(), self.initial_k, threshold, self._seed)
        if drawn is not None:
            self.W_dec.copy_(drawn.W_dec_FD)
            self.W_enc.copy_(drawn.W_enc_FD)
            self.set_deviation(drawn.deviation)

    @torch.no_grad()
    def set_deviation(self, deviation: Tensor) -> None:
        """Set thresholds or biases for pre-activations of a standard deviation, (); the base class has none."""

    def _require_k(self, k: int) -> int:
        """Return k as an int. Raises: ConfigError if it is not a whole number between 1 and dict_size."""
        return require_whole("k", k, 1, self.dict_size, "dict_size=")

    def _require_options(self, **options: Any) -> None:
        """Check options by the rules of the architecture's settings. Raises: ConfigError as `require_options` does."""
        require_options(self.architecture, self.dict_size, options)

    @abstractmethod
    def for_inference(self) -> InferenceSAE:
        """Return the SAE that is saved: an InferenceSAE with these weights and the architecture's selection rule."""

    def _build_inference_sae(self, **selection: Any) -> InferenceSAE:
        """Build an `inference_class` SAE with these weights.

        `selection` holds the arguments that define the selection rule: `k`, or `threshold` and, in a gated SAE, `gain`
        and `shift`; a subclass of InferenceSAE may take others.
        """
        b_enc_F = self.b_enc
        if b_enc_F is not None and not self.centers_input:
            b_enc_F = b_enc_F - self.W_enc @ self.input_center
        return self.inference_class(
            self.architecture,
            W_enc=self.W_enc,
            W_dec=self.W_dec,
            b_enc=b_enc_F,
            b_dec=self.b_dec,
            centers_input=self.centers_input,
            normalization=self.normalization,
            **selection,
        )

    @abstractmethod
    def keep(self, product: Product) -> Entries:
        """Select the entries of the (B, F) pre-activations that take part in a training step, and set `value`.

        An entry may have the activation 0 and still contribute to a gradient.
        """

    def collect_dead(self, product: Product, dead_M: Tensor, *, is_read: bool) -> Callable[[], Entries] | None:
        """Collect the pre-activations of the dead latents, if possible during the encoder pass that `keep` makes.

        `dead_M` (M,) holds the indices of the dead latents. With `is_read`, `keep` has made this pass already. Returns:
        a callable that returns the (B, M) entries of the auxiliary loss after `keep`; None if there is no such loss.
        """
        return None

    def start(self, x_BD: Tensor) -> None:
        """Prepare for the first step of all, on normalised activations (B, D); the base class needs nothing."""

    @torch.no_grad()
    def training_step(self, x_BD: Tensor, dead_F: Tensor, precision: str = "float32", variant: Variant = USUAL) -> Step:
        """Compute the loss of a batch of normalised activations and set the gradients of all parameters.

        New gradients replace those of the previous step. The arguments are those of `compute_gradients`.
        """
        self.start(x_BD)
        found = self.compute_gradients(x_BD, dead_F, precision, variant)
        found.set_on(self, has_unit_rows=variant.has_unit_rows)
        return found.step

    @torch.no_grad()
    def compute_gradients(
        self,
        x_BD: Tensor,
        dead_F: Tensor | None,
        precision: str = "float32",
        variant: Variant = USUAL,
        room: Room | None = None,
    ) -> StepGradients:
        """Compute the loss of a batch of normalised activations and what the gradients consist of.

        The loss is the sum of the reconstruction loss (`fit`), the architecture's sparsity loss (`entry_gradients`) and
        the auxiliary loss (`collect_dead`) on the dead latents that `dead_F`, bool (F,), marks; None stands for none.
        With a `precision` of "tf32" or "bfloat16", the encoder's product only chooses the latents; the activations of
        the chosen latents are computed in float32. With a `room`, and without dead latents, nothing waits for a GPU.
        """
        input_BD = self.encoder_input(x_BD)
        product = self.product(input_BD, precision, room)
        kept, dead_M, keep_dead = self._keep_both(product, dead_F, variant)
        entries = kept.to_columns()
        fit, auxiliary = self.fit(kept, entries, x_BD), None
        if keep_dead is not None and variant.has_residual_gradient:
            auxiliary = self._fit_residual(keep_dead(), dead_M, fit)
            fit.add_gradient(auxiliary.grad_BD)
        value_grad = fit.entries.value_gradients(fit.grad_RD, self.W_dec)
        self.update_l0_target(entries, value_grad, fit.pre_grad)
        gradients = self.entry_gradients(entries, value_grad, fit.pre_grad)
        if keep_dead is not None:
            auxiliary = auxiliary or self._fit_residual(keep_dead(), dead_M, fit)
        dead_gradients = None if auxiliary is None else auxiliary.gradients(input_BD)
        vectors = self._vector_gradients(entries, gradients, dead_gradients, fit.grad_RD[: len(x_BD)])
        self.update_statistics(kept)
        aux_loss = fit.loss.new_zeros(()) if auxiliary is None else auxiliary.loss
        loss = fit.loss + gradients.sparsity_loss + aux_loss
        step = Step(loss, fit.mse, kept.active.sum() / x_BD.shape[0], aux_loss, kept.find_fired())
        return StepGradients(step, fit, entries, gradients.pre, value_grad, input_BD, dead_gradients, vectors)

    def _keep_both(
        self, product: Product, dead_F: Tensor | None, variant: Variant
    ) -> tuple[Entries, Tensor, Callable[[], Entries] | None]:
        """Return the kept entries, the indices of the dead latents (M,), and what returns the entries of these."""
        if dead_F is None:
            return self.keep(product), product.input_BD.new_zeros(0, dtype=torch.int64), None
        if variant.counts_batch:
            kept = self.keep(product)
            dead_M = (dead_F & ~kept.find_fired()).nonzero().squeeze(1)
            return kept, dead_M, self.collect_dead(product, dead_M, is_read=True)
        dead_M = dead_F.nonzero().squeeze(1)
        keep_dead = self.collect_dead(product, dead_M, is_read=False)
        return self.keep(product), dead_M, keep_dead

    def _fit_residual(self, dead: Entries, dead_M: Tensor, fit: Fit) -> AuxiliaryFit:
        """Compute the auxiliary loss of the entries `dead` (B, M) of the dead latents `dead_M` (M,)."""
        return AuxiliaryFit.from_entries(dead, dead_M, self.W_dec[dead_M], fit.error_BD, self.aux_coefficient)

    def _vector_gradients(
        self,
        entries: LatentEntries,
        gradients: EntryGradients,
        dead_gradients: AuxiliaryGradients | None,
        recon_grad_BD: Tensor,
    ) -> dict[str, Tensor]:
        """Return the gradients of all parameters but W_enc and W_dec, by name."""
        pre_F = entries.latent_sums(gradients.pre)
        if dead_gradients is not None:
            pre_F[dead_gradients.dead_M] += dead_gradients.pre_M
        vectors = {"b_dec": recon_grad_BD.sum(0), **gradients.parameters}
        if self.centers_input:
            vectors["b_dec"] -= pre_F @ self.W_enc
        if self.b_enc is not None:
            vectors["b_enc"] = self.bias_gradient(pre_F, gradients)
        return vectors

    def fit(self, kept: Entries, entries: LatentEntries, x_BD: Tensor) -> Fit:
        """Compute the mean squared error per element of the reconstruction of `x_BD`, and the gradient of this loss.

        `entries` are the kept entries in column-major order.
        """
        error_BD = kept.decode(self.W_dec).add_(self.b_dec).sub_(x_BD)
        mse = error_BD.square().mean()
        return Fit(mse, mse, error_BD, entries, error_BD * (2 / error_BD.numel()))

    def update_l0_target(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> None:
        """Update the L0 controller (penalty coefficient and next change of thresholds or biases) from this batch.

        Called before `entry_gradients`, with the same arguments. The base class has no controller.
        """

    def update_statistics(self, kept: Entries) -> None:
        """Update statistics that are learned from a batch without gradients, such as BatchTopK's inference threshold.

        The base class has no such statistics.
        """

    def entry_gradients(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> EntryGradients:
        """Compute the gradients by the kept pre-activations, and the sparsity loss; in the base class that loss is 0.

        `value_grad` is the gradient of the reconstruction loss by the activations. `pre_grad` is the gradient by the
        pre-activations if these reconstruct as well, as in gated SAEs; otherwise None.
        """
        return EntryGradients(value_grad * entries.active, value_grad.new_zeros(()))

    def bias_gradient(self, pre_grad_F: Tensor, gradients: EntryGradients) -> Tensor:
        """Compute the gradient of b_enc, (F,), from `pre_grad_F`, the gradients by the pre-activations of each latent.

        `pre_grad_F` is summed over the batch.
        """
        return pre_grad_F

    @torch.no_grad()
    def normalize_rows(self) -> None:
        """Scale decoder rows to unit norm, which an optimizer step does not preserve."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    @torch.no_grad()
    def lower_thresholds(self, dead_F: Tensor, factor: float) -> None:
        """Scale the thresholds of the latents that `dead_F`, bool (F,), marks; the base class has none."""

    @torch.no_grad()
    def after_update(self) -> None:
        """Adjust thresholds or biases after an optimizer step, such as towards a target L0; the base class has none."""
