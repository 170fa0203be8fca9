"""One UNet for the globe: the small embedded network and the SongUNet of paper 001 are two configurations of it.

    inputs -> space-to-depth -> stem -> levels down -> middle -> levels up with skips -> head -> depth-to-space

Every encoder output is concatenated to the input of its mirror in the decoder, which therefore has one block more per
level (Ho et al. 2020; Song et al. 2021). With ``resample_blocks`` the resolution changes inside residual blocks, as in
the DDPM++ network of Karras et al. (2022, arXiv 2206.00364) that paper 001 calls SongUNet; without, by plain averaging
and repetition after a 1 x 1 convolution, which costs nothing on a CPU.

Embedded: ``patch=2, base=64, multipliers=(1, 2, 2), blocks=2``.
Paper 001 (§3.4): ``patch=1, base=64, multipliers=(1, 2, 4, 8, 16), blocks=4, attention=(2, 3, 4), dropout=0.1,
resample_blocks=True, head=None``, which at 128 x 256 puts attention at 32 x 64, 16 x 32 and 8 x 16.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genda.nn.layers import Conv2d, NoiseEmbedding, ResidualBlock, group_norm, resample


class UNet(nn.Module):
    """A noise-conditional UNet, circular in longitude, or on a region.

    Args:
        in_channels: channels of ``inputs``, static maps included.
        out_channels: channels of the output.
        condition: size of the condition vector, 0 for none.
        base: channels of the finest level.
        multipliers: channels of each level in units of ``base``, finest first; each level halves the resolution.
        blocks: residual blocks a level in the encoder, one number for all or one each; the decoder has one more.
        attention: levels (0 the finest) with self-attention after every encoder block and after the last decoder block;
            the middle has it where any level has.
        patch: side of the squares folded into channels before the first level.
        dropout: dropout probability.
        resample_blocks: change resolution inside residual blocks (SongUNet) instead of without parameters.
        head: channels of an attention head, None for one head.
        embedding: size of the noise embedding, 4 x ``base`` where None.
        position: number of learned maps on the input grid added to the inputs, 0 for none; needs ``grid``.
        grid: (lat, lon) of the position maps.
        periodic: whether columns close the circle.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition: int = 0,
        base: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int | Sequence[int] = 2,
        attention: Sequence[int] = (),
        patch: int = 2,
        dropout: float = 0.0,
        resample_blocks: bool = False,
        head: int | None = 64,
        embedding: int | None = None,
        position: int = 0,
        grid: tuple[int, int] | None = None,
        periodic: bool = True,
    ) -> None:
        super().__init__()
        if position and grid is None:
            raise ValueError("position: learned maps need the grid's shape, found None, expected (lat, lon)")
        self.patch, self.resample_blocks, self.levels = patch, resample_blocks, len(multipliers)
        self.periodic = periodic
        width = embedding or 4 * base
        self.position = nn.Parameter(0.02 * torch.randn(1, position, *grid)) if position and grid else None

        def block(channels_in: int, channels_out: int, attends: bool = False, factor: float = 1) -> ResidualBlock:
            return ResidualBlock(channels_in, channels_out, width, dropout, attends, head, factor, periodic)

        self.embed = NoiseEmbedding(base, width, condition)
        channels = [base * m for m in multipliers]
        counts = [blocks] * self.levels if isinstance(blocks, int) else list(blocks)
        if len(counts) != self.levels:
            raise ValueError(f"blocks: found {len(counts)} numbers, expected one for each of {self.levels} levels")
        # A patch already holds its neighbours; a 3 x 3 stem on patches would be the dearest layer of the network.
        self.stem = Conv2d((in_channels + position) * patch**2, base, kernel=3 if patch == 1 else 1, periodic=periodic)
        self.encoder, self.down, self.up, self.decoder = (nn.ModuleList() for _ in range(4))
        skips, current = [base], base
        for level, out in enumerate(channels):
            if level:
                self.down.append(block(current, current, factor=0.5) if resample_blocks else nn.Identity())
                skips.append(current)
            stage = nn.ModuleList()
            for _ in range(counts[level]):
                stage.append(block(current, out, level in attention))
                skips.append(current := out)
            self.encoder.append(stage)
        self.middle = nn.ModuleList(block(current, current, attends) for attends in (bool(attention), False))
        for level in reversed(range(self.levels)):
            out = channels[level]
            if level < self.levels - 1:
                self.up.append(block(current, current, factor=2) if resample_blocks else Conv2d(current, out, kernel=1))
                current = current if resample_blocks else out
            stage = nn.ModuleList()
            for index in range(counts[level] + 1):
                attends = level in attention and index == counts[level]
                stage.append(block(current + skips.pop(), out, attends))
                current = out
            self.decoder.append(stage)
        self.norm = group_norm(current)
        self.head = Conv2d(current, out_channels * patch**2, gain=0.0, periodic=periodic)

    def forward(
        self, inputs: Tensor, c_noise: Tensor, condition: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """The raw network output F.

        Args:
            inputs: (batch, in_channels, lat, lon), of order one; with ``context`` its channels count among them.
            c_noise: (batch,) embedded noise level.
            condition: (batch, condition) or None.
            context: maps joined to the inputs, (batch, context, lat, lon), or None.

        Returns:
            (batch, out_channels, lat, lon).

        Raises:
            ValueError: where columns of a circle do not divide by the coarsest level's spacing, or the condition's size is wrong.
        """
        parts = [inputs] if self.position is None else [inputs, self.position.expand(len(inputs), -1, -1, -1)]
        inputs = torch.cat([*parts, *([] if context is None else [context])], dim=1)
        rows, columns = inputs.shape[-2:]
        step = self.patch * 2 ** (self.levels - 1)
        if columns % step and self.periodic:
            raise ValueError(f"longitude: found {columns} columns, expected a multiple of {step} for this network")
        if -rows % step or -columns % step:  # 121 rows: zeros beyond the last, cut off again below
            inputs = F.pad(inputs, (0, -columns % step, 0, -rows % step))
        embedding = self.embed(c_noise, condition)
        x = self.stem(F.pixel_unshuffle(inputs, self.patch))
        skips = [x]
        for level, stage in enumerate(self.encoder):
            if level:
                x = self.down[level - 1](x, embedding) if self.resample_blocks else resample(x, 0.5)
                skips.append(x)
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, embedding)
                skips.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for index, stage in enumerate(self.decoder):
            if index:
                up = self.up[index - 1]
                x = up(x, embedding) if self.resample_blocks else resample(up(x), 2)
            for block in stage:  # type: ignore[attr-defined]
                x = block(torch.cat([x, skips.pop()], dim=1), embedding)
        x = F.pixel_shuffle(self.head(F.silu(self.norm(x))), self.patch)
        return x[..., :rows, :columns]
