# SPDX-License-Identifier: Apache-2.0
"""A tiny transformer encoder that classifies images; its linear layers can be pruned.

It is a module to prune and to train. The integer network has no attention, so there is no export.
"""

import torch
from torch import nn


class TinyTransformer(nn.Module):
    """Patches → linear embedding with positions → encoder → mean over tokens → linear.

    Parameters
    ----------
    size, patch : int
        Side of the images and of a patch in pixels; the patch divides the side.
    channels, classes : int
    width : int
        Values of a token.
    heads, layers : int
        Of the encoder; its feed-forward parts are four times as wide as a token.
    """

    def __init__(
        self,
        *,
        size: int = 28,
        patch: int = 7,
        channels: int = 1,
        classes: int = 10,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
            ),
            layers,
            # Its shortcut for padded tokens needs what comes before, not after, a norm.
            enable_nested_tensor=False,
        )
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give float[N, classes] for float[N, channels, size, size]."""
        tokens = self.embed(pixels).flatten(2).transpose(1, 2) + self.position
        return self.classify(self.norm(self.encoder(tokens)).mean(1))
