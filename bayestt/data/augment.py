"""Training images changed by chance, a batch at a time, on the device where the batch lies."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class CropAndFlip:
    """Images shifted by up to `padding` pixels each way, zeros coming in, and half of them mirrored (He et al. 2016, section 4.2)."""

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"a padding of {self.padding} pixels: give 0 or more")

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        """Images (n, h, w) or (n, channels, h, w), changed by three numbers each, `chance` (n, 3), uniform from 0 to 1.

        The first two choose the rows and columns of the padded image that stay, the third, where it is below 1/2, mirrors them.
        """
        if images.ndim not in (3, 4):
            raise ValueError(f"images of shape {tuple(images.shape[1:])} cannot be cropped: give (h, w) or (channels, h, w), or no augment")
        height, width = images.shape[-2:]
        padded = pad(images.reshape(len(images), -1, height, width), (self.padding,) * 4)
        above, left = (chance[:, :2] * (2 * self.padding + 1)).long().clamp(max=2 * self.padding).T
        rows = above[:, None] + torch.arange(height, device=images.device)
        cols = torch.arange(width, device=images.device).expand(len(images), width)
        cols = left[:, None] + torch.where(chance[:, 2:] < 0.5, cols.flip(1), cols)
        which = torch.arange(len(images), device=images.device)[:, None, None]
        # Indices around a slice bring the channels last, which is how convolutions like them to lie in memory.
        return padded[which, :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2).reshape(images.shape)
