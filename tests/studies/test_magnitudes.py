"""Histograms of magnitudes, compared with those of all activations at once."""

import pytest
import torch

from sae_sweeps.studies.magnitudes import MagnitudeHistograms


@pytest.mark.parametrize("calls", [[500], [1] * 20 + [480], [250, 0, 250]])
def test_histograms_of_parts_equal_those_of_the_whole(calls):
    generator = torch.Generator().manual_seed(0)
    latent_N = torch.randint(6, (500,), generator=generator)
    latent_N[latent_N == 3] = 4  # latent 3 is never active
    value_N = torch.randn(500, generator=generator).exp() * 10.0 ** (latent_N - 3)
    value_N[::7] *= -1
    found = MagnitudeHistograms(6, torch.device("cpu"))
    for part_N, value_of_part in zip(latent_N.split(calls), value_N.split(calls), strict=True):
        found.update(part_N, value_of_part)
    for latent, (width, counts) in enumerate(zip(found.width.tolist(), found.count.tolist(), strict=True)):
        magnitudes = value_N[latent_N == latent].abs().tolist()
        expected = [0] * 32
        for magnitude in magnitudes:
            expected[int(magnitude // width)] += 1
        assert counts == expected
        assert (max(magnitudes, default=0) >= 16 * width) == (latent != 3)


def test_a_magnitude_on_an_edge_is_in_the_bin_above_it():
    found = MagnitudeHistograms(1, torch.device("cpu"))
    found.update(torch.zeros(3, dtype=torch.int64), torch.tensor([1.0, -0.5, 31 / 32]))
    assert found.width.tolist() == [1 / 16]
    assert [(at, count) for at, count in enumerate(found.count[0].tolist()) if count] == [(8, 1), (15, 1), (16, 1)]
