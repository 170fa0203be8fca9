"""Background errors in a latent space as training data: one sample for every date, lead and turn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genda.files import Times
from genda.latent_model import AutoencoderModel
from genda.train.pairs import Pairs


class Latents:
    """Latents of truths and backgrounds, one for every date, lead and turn, in half precision.

    A turn is by how many points states were rolled before they were folded into patches: each gives another latent of the same
    error. ``truth`` holds latents of the truth until :meth:`scale` makes increments of them, which :meth:`count_from` counts
    from another start than their mean.

    Attributes:
        pairs: the states.
        truth, background: shape (sample, latent, lat, lon).
        date, lead, turn: of each sample, shape (sample,).
        times: of each sample.
    """

    def __init__(
        self, pairs: Pairs, truth: Tensor, background: Tensor, date: Tensor, lead: Tensor, turn: Tensor
    ) -> None:
        self.pairs, self.truth, self.background, self.date, self.lead, self.turn = (
            pairs,
            truth,
            background,
            date,
            lead,
            turn,
        )
        self.times: Times = pairs.times[date.numpy()]

    @staticmethod
    @torch.no_grad()
    def of(space: AutoencoderModel, pairs: Pairs, turns: range) -> Latents:
        """All leads and the turns named, of all pairs."""

        def encoded(x: Tensor, turn: int) -> Tensor:
            parts = [space.autoencoder.encode(part.float().roll(turn, -1)).mean.half() for part in torch.split(x, 32)]
            return torch.cat(parts)

        truths, backgrounds, leads, turned = [], [], [], []
        for turn in turns:
            truth = encoded(pairs.truth, turn)
            for lead in range(len(pairs.leads)):
                truths.append(truth)
                backgrounds.append(encoded(pairs.background[:, lead], turn))
                leads.append(torch.full((len(truth),), lead))
                turned.append(torch.full((len(truth),), turn))
        date = torch.arange(len(pairs.times)).repeat(len(truths))
        return Latents(pairs, torch.cat(truths), torch.cat(backgrounds), date, torch.cat(leads), torch.cat(turned))

    def statistics(self, space: AutoencoderModel, area: Tensor) -> tuple[Tensor, Tensor]:
        """Mean errors by turn and lead, (turn, lead, latent, lat, lon), and scales by lead and channel, (lead, latent, 1, 1).

        A channel's scale is inversely proportional to how much state it decodes to, so that white noise of latents is white
        noise of states in units of the loss, and increments have unit variance over all.
        """
        reach = space.reach.view(-1, 1, 1)
        turns, leads = int(self.turn.max()) + 1, int(self.lead.max()) + 1
        mean = torch.stack(
            [torch.stack([self._error(turn, lead).mean(dim=0) for lead in range(leads)]) for turn in range(turns)]
        )
        scales = []
        for lead in range(leads):
            error = torch.cat([self._error(turn, lead) - mean[turn, lead] for turn in range(turns)])
            scales.append(((error * reach) ** 2 * area.view(-1, 1)).mean().sqrt() / reach)
        return mean, torch.stack(scales)

    def scale(self, mean: Tensor, scale: Tensor) -> None:
        """Replace truths by increments."""
        for turn in range(int(self.turn.max()) + 1):
            for lead in range(len(scale)):
                increment = (self._error(turn, lead) - mean[turn, lead]) / scale[lead]
                self.truth[self._chosen(turn, lead)] = increment.half()

    def count_from(self, told: Callable[[Tensor], Tensor]) -> None:
        """Count increments from what is told of those of an index, (sample,) to (sample, latent, lat, lon); after :meth:`scale`."""
        for part in torch.split(torch.arange(len(self.truth)), 64):
            self.truth[part] = (self.truth[part].float() - told(part)).half()

    def _error(self, turn: int, lead: int) -> Tensor:
        """Truth less background, (sample, latent, lat, lon)."""
        chosen = self._chosen(turn, lead)
        return self.truth[chosen].float() - self.background[chosen].float()

    def _chosen(self, turn: int, lead: int) -> Tensor:
        return (self.turn == turn) & (self.lead == lead)

    def states(self, states: Tensor, index: Tensor) -> Tensor:
        """States (date, channel, lat, lon), or those of each lead (date, lead, channel, lat, lon), turned as samples are.

        Returns:
            shape (len(index), channel, lat, lon), float32.
        """
        rows = [
            (states[date] if states.ndim == 4 else states[date, lead]).roll(turn, -1)
            for date, lead, turn in zip(*(v[index].tolist() for v in (self.date, self.lead, self.turn)), strict=True)
        ]
        return torch.stack(rows).float()


@torch.no_grad()
def floor_variance(space: AutoencoderModel, pairs: Pairs, count: int = 64) -> Tensor:
    """Variance of errors that the latent can't hold, (lead, channel)."""
    chosen = slice(None, None, max(1, len(pairs.times) // count))

    def decoded(x: Tensor) -> Tensor:
        return space.autoencoder.decode(space.autoencoder.encode(x).mean)

    rows = []
    for lead in range(len(pairs.leads)):
        truth, background = pairs.truth[chosen].float(), pairs.background[chosen, lead].float()
        lost = decoded(truth) - decoded(background) - (truth - background)
        rows.append((lost**2).mean(dim=(0, 2, 3)))
    return torch.stack(rows)
