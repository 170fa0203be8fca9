"""The loss of a prior of background errors: denoising in units of the Gaussian's own error, and the physics term if any."""

from __future__ import annotations

from torch import Tensor, nn

from genda.diffusion.denoiser import per_sample
from genda.diffusion.increments import IncrementDenoiser
from genda.train.physics import PhysicsTerm


class IncrementObjective(nn.Module):
    """The denoising loss of increments in units of the Gaussian's own error, and all fitted statistics of the model.

    Args:
        denoiser: of increments.
        area_weights: of the latent's rows, shape (lat,).
        physics: the term; None leaves it out.
        mean: of latent errors by turn and lead, shape (turn, lead, latent, lat, lon).
        scale: of latent errors, shape (lead, latent, 1, 1).
        floor: variance of errors that the latent can't hold, shape (lead, channel).
        space: digest of the autoencoder, by which a resumed run knows its latents again, shape (32,).
        error: variance of background errors, shape (lead, channel), of a network that is shown observations.
        damping: of backgrounds by lead, shape (lead, modes + 1); None where increments are about the mean alone.
    """

    area_weights: Tensor
    mean: Tensor
    scale: Tensor
    floor: Tensor
    space: Tensor
    error: Tensor | None
    damping: Tensor | None

    def __init__(
        self,
        denoiser: IncrementDenoiser,
        area_weights: Tensor,
        physics: PhysicsTerm | None,
        *,
        mean: Tensor,
        scale: Tensor,
        floor: Tensor,
        space: Tensor,
        error: Tensor | None,
        damping: Tensor | None,
    ) -> None:
        super().__init__()
        self.denoiser, self.physics = denoiser, physics
        self.register_buffer("area_weights", area_weights, persistent=False)
        fitted = {"mean": mean, "scale": scale, "floor": floor, "space": space, "error": error, "damping": damping}
        for name, value in fitted.items():
            self.register_buffer(name, value)

    def forward(
        self, e: Tensor, sigma: Tensor, noise: Tensor, condition: Tensor, context: Tensor, *decoding: Tensor
    ) -> Tensor:
        """Mean loss of the batch, (); 1 is what the Gaussian alone scores, the physics term aside.

        ``e`` and ``noise`` are (batch, latent, lat, lon), ``sigma`` (batch,), ``condition`` (batch, 3) and ``context``
        (batch, map, lat, lon).
        ``decoding`` is what :meth:`genda.train.physics.PhysicsTerm.forward` takes after the levels, where there is such a term.
        """
        estimate = self.denoiser(e + per_sample(sigma, e) * noise, sigma, condition, context)
        error_std = self.denoiser.base.error_std(sigma)  # type: ignore[operator]
        squares = self.area_weights.view(-1, 1) * ((estimate - e) / error_std) ** 2
        loss: Tensor = squares.mean()
        if self.physics is None:
            return loss
        highest = self.denoiser.base.error_std(sigma.clamp(min=self.physics.level))  # type: ignore[operator]
        term: Tensor = self.physics(estimate, e, sigma, highest.square().mean(dim=(1, 2, 3)).sqrt(), *decoding)
        return loss + term
