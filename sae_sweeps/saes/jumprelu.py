"""JumpReLU SAEs: a latent is active above its own threshold, learned under an L0 penalty (arXiv:2407.14435)."""

# B activations in a batch, R of them in a block, D model width, F latents (dict_size), N entries

import torch
from torch import Tensor, nn

from sae_sweeps.config.saes import JumpReLUConfig, SAEConfig
from sae_sweeps.runtime.inputs import check_names
from sae_sweeps.saes.encoder import Product
from sae_sweeps.saes.inference import InferenceSAE
from sae_sweeps.saes.penalized import PenalizedSAE
from sae_sweeps.saes.selection import keep_above
from sae_sweeps.saes.sparse import Dense, Entries, LatentEntries, RowSparse, dense_from
from sae_sweeps.saes.step import EntryGradients


class JumpReLUSAE(PenalizedSAE):
    """pre = relu(x @ W_enc^T + b_enc), z = pre * (pre > threshold), loss = mse + sparsity_coefficient * L0.

    The thresholds' gradients are estimated with a rectangle kernel of width `bandwidth` (arXiv:2407.14435, equations 11
    and 12): only entries within half a bandwidth of a threshold contribute to the threshold's gradient. The parameter
    is the threshold itself, clamped to 0 or above. A threshold starts at `initial_threshold` standard deviations of the
    untrained pre-activations, or at `absolute_threshold`.

    The code of arXiv:2412.06410 differs in two ways, which its coefficients depend on. With `penalty_window` "upper",
    the gradient of the penalty has only entries above the threshold, that of the error those on both sides. With
    `threshold_parameter` "log", the parameter is the threshold's logarithm, and its gradient is that by the threshold:
    the factor of the chain rule, the threshold, is left out.

    With `target_l0` in place of a coefficient, one factor on all thresholds sets the untrained SAE to this L0, and a
    factor after each step keeps L0 there; the coefficient is estimated from the batches (`L0Target`).
    """

    architecture = "jumprelu"
    centers_input = False
    has_bias = True

    @check_names
    def __init__(
        self,
        d_in: int,
        dict_size: int,
        k: int | None = None,
        *,
        sparsity_coefficient: float | None = JumpReLUConfig.sparsity_coefficient,
        target_l0: float | None = JumpReLUConfig.target_l0,
        bandwidth: float = JumpReLUConfig.bandwidth,
        penalty_window: str = JumpReLUConfig.penalty_window,
        threshold_parameter: str = JumpReLUConfig.threshold_parameter,
        initial_threshold: float = JumpReLUConfig.initial_threshold,
        absolute_threshold: float | None = JumpReLUConfig.absolute_threshold,
        normalize_input: bool = SAEConfig.normalize_input,
        seed: int = 0,
    ) -> None:
        super().__init__(
            d_in,
            dict_size,
            k,
            sparsity_coefficient=sparsity_coefficient,
            target_l0=target_l0,
            normalize_input=normalize_input,
            seed=seed,
        )
        self._require_options(
            bandwidth=bandwidth,
            penalty_window=penalty_window,
            threshold_parameter=threshold_parameter,
            initial_threshold=initial_threshold,
            absolute_threshold=absolute_threshold,
        )
        self.bandwidth, self.penalty_window = bandwidth, penalty_window
        self.initial_threshold, self.absolute_threshold = initial_threshold, absolute_threshold
        # for activations of unit variance, the norm of a row of W_enc is the pre-activation's standard deviation
        start_F = initial_threshold * self.W_enc.detach().norm(dim=1)
        if absolute_threshold is not None:
            start_F.fill_(absolute_threshold)
        self._parameter = "log_threshold" if threshold_parameter == "log" else "threshold"
        self.register_parameter(self._parameter, nn.Parameter(start_F.log() if self._is_log else start_F))

    @property
    def _is_log(self) -> bool:
        return self._parameter == "log_threshold"

    @property
    def inference_threshold(self) -> Tensor:
        """Return the thresholds, (F,), above which latents are active in training and at inference."""
        parameter_F = self.get_parameter(self._parameter).detach()
        return parameter_F.exp() if self._is_log else parameter_F

    @torch.no_grad()
    def set_deviation(self, deviation: Tensor) -> None:
        """Set the thresholds to `initial_threshold` deviations of the pre-activations, (), unless they are absolute."""
        if self.absolute_threshold is None:
            start = self.initial_threshold * deviation
            self.get_parameter(self._parameter).copy_((start.log() if self._is_log else start).expand(self.dict_size))

    @torch.no_grad()
    def _scale_thresholds(self, factor: Tensor) -> None:
        """Scale the thresholds by a positive factor, one for all, (), or one for each, (F,)."""
        parameter_F = self.get_parameter(self._parameter)
        if self._is_log:
            parameter_F.add_(factor.log())
        else:
            parameter_F.mul_(factor)

    @torch.no_grad()
    def lower_thresholds(self, dead_F: Tensor, factor: float) -> None:
        """Scale the thresholds of the latents that `dead_F`, bool (F,), marks by a positive factor.

        A dead latent has no gradient, neither of its weights nor of its threshold. Below some threshold it is active
        again, on the activations that it responds to most, and is trained on these.
        """
        self._scale_thresholds(torch.where(dead_F, factor, 1.0))

    @torch.no_grad()
    def keep(self, product: Product) -> Entries:
        """Select the entries above the latent's threshold, and the entries less than half a `bandwidth` below.

        Entries below the threshold have the activation 0, but contribute to the threshold's gradient. Returns every
        entry, `Dense`, if more than the share `dense_from` are selected.
        """
        at_most = dense_from(product.shape, product.input_BD.device)
        threshold_F = self.inference_threshold
        entries: Entries | None = keep_above(product, threshold_F - self.bandwidth / 2, at_most)
        if entries is None:
            entries = Dense(product.to_dense().relu_())
        entries.value = entries.pre * (entries.pre > entries.gather(threshold_F))
        return entries

    def keep_for_inference(self, product: Product) -> RowSparse:
        """Select the pre-activations above the latent's threshold."""
        kept = keep_above(product, self.inference_threshold)
        assert kept is not None, "keep_above returns entries if no `at_most` is given"
        return kept

    def for_inference(self) -> InferenceSAE:
        """Return the InferenceSAE with these weights and a threshold for each latent."""
        return self._build_inference_sae(threshold=self.inference_threshold)

    @torch.no_grad()
    def start_at_target(self, pre_RF: Tensor) -> None:
        """Scale all thresholds by one factor so that L0 on the pre-activations of R activations is the target L0."""
        assert self.l0_target is not None, "the SAE has a target L0"
        level = self.l0_target.find_starting_level(pre_RF, self.inference_threshold)
        self._scale_thresholds(level.clamp(min=1e-3))

    def _is_near_threshold(self, entries: LatentEntries) -> Tensor:
        """Return which kept entries are positive and within half a `bandwidth` of the latent's threshold.

        Returns: bool, in the shape of `entries.pre`: (N,), or (B, F) for `Dense`.
        """
        threshold = entries.gather(self.inference_threshold)
        return ((entries.pre - threshold).abs() < self.bandwidth / 2) & (entries.pre > 0)

    def update_l0_target(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> None:
        """Update the penalty coefficient and the next factor on thresholds from this batch, if there is a target L0.

        `value_grad` is the gradient of the error by the activations; `pre_grad` is unused.
        """
        if self.l0_target is not None:
            batch, threshold = entries.shape[0], entries.gather(self.inference_threshold)
            # derivatives by one factor on all thresholds, estimated with the kernel
            by_factor = self._is_near_threshold(entries) * threshold / self.bandwidth
            error_rise = -entries.total(by_factor * threshold * value_grad)
            penalty_fall = None
            if self.penalty_window == "upper":
                penalty_fall = entries.total(by_factor * entries.active) / batch
            l0_fall = entries.total(by_factor) / batch
            self.l0_target.update(entries.active.sum() / batch, error_rise, l0_fall, penalty_fall)

    def entry_gradients(self, entries: LatentEntries, value_grad: Tensor, pre_grad: Tensor | None) -> EntryGradients:
        """Compute the gradients by the kept pre-activations and by the thresholds, and the L0 penalty of the batch.

        `value_grad` is the gradient of the error by the activations; `pre_grad` is unused.
        """
        batch, active = entries.shape[0], entries.active
        threshold, near = entries.gather(self.inference_threshold), self._is_near_threshold(entries)
        coefficient = self.sparsity_coefficient / batch
        penalized = coefficient
        if self.penalty_window == "upper":
            penalized = coefficient * active.to(value_grad.dtype)
        threshold_grad_F = entries.latent_sums(near * (threshold * value_grad + penalized) / -self.bandwidth)
        penalty = coefficient * active.sum().to(value_grad.dtype)
        return EntryGradients(value_grad * active, penalty, {self._parameter: threshold_grad_F})

    @torch.no_grad()
    def after_update(self) -> None:
        """Scale the thresholds towards the target L0 if there is one, and clamp them to 0."""
        if self.l0_target is not None:
            self._scale_thresholds(self.l0_target.compute_factor())
        if not self._is_log:
            self.get_parameter("threshold").clamp_(min=0)
