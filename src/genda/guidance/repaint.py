r"""RePaint: what is observed is painted over the estimate, x̂ = m y + (1 - m) D(x_t), with a soft mask m.

There is no observation error and no operator but values on the grid: each observation is carried to grid points about it by a
Gaussian kernel, as the mean of all that reach the point, and m is the largest kernel there. The sampler's walk back and forth
(:class:`genda.diffusion.sampler.Sampler`, ``jump`` and ``repeats``) lets the unobserved part take notice.

What is painted are increments to the background, so that a value says the same to its neighbours as to itself; DiffDA paints
anomalies spread by kriging.

References:
    Lugmayr et al. 2022, arXiv 2201.09865; Huang et al. 2024, arXiv 2401.05932 (DiffDA: the soft mask).
"""

from __future__ import annotations

import torch
from torch import Tensor

from genda.diffusion.denoiser import Denoiser
from genda.diffusion.guided import Guided
from genda.observations.operators import LinearOperator
from genda.problem import Problem, Source


class RePaint(Guided):
    """The painted denoiser.

    Args:
        prior: D, of increments to the background.
        known: values to paint, shape (channel, lat, lon).
        mask: m from 0 to 1, the same shape.
    """

    def __init__(self, prior: Denoiser, known: Tensor, mask: Tensor) -> None:
        self.prior, self._known, self._mask = prior, known, mask

    def terms(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            estimate = self.prior(x_t, sigma, condition)
        return estimate, self._mask.to(estimate) * (self._known.to(estimate) - estimate)


def painted(problem: Problem, background: Tensor, distance: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Innovations carried to the grid, and the mask.

    Args:
        problem: its sources must be linear in the state.
        background: x_b, shape (channel, lat, lon).
        distance: between grid points, shape (lat · lon, lat · lon).
        width: of the kernel, in the units of ``distance``; it ends at four widths.

    Returns:
        increments to paint and the mask, each (channel, lat, lon).

    Raises:
        ValueError: for an operator that does not read grid values.
    """
    total, density = torch.zeros_like(background), torch.zeros_like(background)
    for source in problem.sources:
        values, weights = _gridded(source, background)
        total, density = total + values, density + weights
    observed = density > 0
    innovation = torch.where(observed, total / density.clamp(min=1e-12), torch.zeros_like(total)).flatten(1)
    kernel = torch.exp(-0.5 * (distance / width) ** 2) * (distance < 4 * width)
    weight = observed.flatten(1).to(kernel)
    reach = weight @ kernel
    known = (innovation.to(kernel) @ kernel) / reach.clamp(min=1e-12)
    mask = torch.stack([_largest(kernel, row) for row in observed.flatten(1)])
    return known.view_as(background).to(background), mask.view_as(background).to(background)


def _gridded(source: Source, background: Tensor) -> tuple[Tensor, Tensor]:
    """Innovations summed at the grid points they read, and their weights."""
    if not isinstance(source.operator, LinearOperator):
        raise ValueError(f"{source.name}: found an operator that is not an interpolation, expected one to paint with")
    ones = torch.ones(1, len(source.values)).to(background)
    misfit = source.misfit(background.unsqueeze(0))
    return source.operator.adjoint(misfit)[0], source.operator.adjoint(ones)[0].clamp(min=0)


def _largest(kernel: Tensor, observed: Tensor) -> Tensor:
    chosen = kernel[observed]
    return chosen.amax(dim=0) if len(chosen) else torch.zeros(kernel.shape[1]).to(kernel)
