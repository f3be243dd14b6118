"""Towers of images and of texts, whose vectors meet in one space."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.words.tower import EPSILON

# Radford et al. 2021, section 2.3: the logarithm of 1 / 0.07, and at most 100; Zhai et al. 2023, section 3.2.
CLIP_SCALE, SIGLIP_SCALE, SIGLIP_BIAS, MOST_SCALE = 1 / 0.07, 10.0, -10.0, 100.0
NO_TOKEN = -1


class Towers(nn.Module):
    """A network of images and a tower of texts, with the scale and bias of the loss `clip` or `siglip`.

    It maps normalised images to vectors [batch, width] of length 1, as `text` does texts.
    """

    def __init__(self, image: nn.Module, text: nn.Module, *, loss: str) -> None:
        super().__init__()
        self.image, self.text, self.loss = image, text, loss
        self.log_scale = nn.Parameter(torch.tensor(math.log(CLIP_SCALE if loss == "clip" else SIGLIP_SCALE)))
        self.bias = nn.Parameter(torch.tensor(0.0 if loss == "clip" else SIGLIP_BIAS))
        if loss == "clip":
            self.bias.requires_grad_(False)

    @property
    def scale(self) -> Tensor:
        """The factor of the cosines."""
        return self.log_scale.exp().clamp_max(MOST_SCALE)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [batch, channels, height, width] to vectors [batch, width]."""
        return functional.normalize(self.image(images), dim=1)


class Fixed(nn.Module):
    """A locked text tower whose vectors were computed before: they are the labels."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the vectors [batch, width] as they are."""
        return vectors


class TableText(nn.Module):
    """A static table with a learnt weight for each token: the weighted mean, centred and turned as in the space.

    `vectors` [tokens, width], `mean` [width] and `matrix` [width, width] are fixed.
    """

    def __init__(self, vectors: np.ndarray, mean: np.ndarray, matrix: np.ndarray) -> None:
        super().__init__()
        for name, array in (("vectors", vectors), ("mean", mean), ("matrix", matrix)):
            self.register_buffer(name, torch.from_numpy(np.asarray(array, np.float32)), persistent=False)
        self.log_weight = nn.Parameter(torch.zeros(len(vectors)))

    def forward(self, ids: Tensor) -> Tensor:
        """Map tokens [batch, length], int64, to vectors [batch, width]."""
        kept = ids.clamp_min(0)
        weights = self.log_weight[kept].exp() * (ids >= 0)
        pooled = functional.normalize((weights[..., None] * self.vectors[kept]).sum(1), dim=1)
        return functional.normalize((pooled - self.mean) @ self.matrix, dim=1)

    def folded(self) -> np.ndarray:
        """Return the table with the weights in it, float32 [tokens, width]."""
        weights = self.log_weight.detach().exp()[:, None]
        return (self.vectors * weights).cpu().numpy()


class TextTower(nn.Module):
    """A transformer of tokens: `layers` of attention and an MLP, the tokens' mean, and a projection to `width`."""

    def __init__(
        self, tokens: int, *, width: int, channels: int = 256, layers: int = 2, heads: int = 4, longest: int = 64
    ) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(tokens, channels)
        self.place = nn.Parameter(torch.empty(longest, channels))
        self.layers = nn.ModuleList(_Layer(channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.project = nn.Linear(channels, width, bias=False)
        # Radford et al. 2021's code: 0.02 for tokens, 0.01 for places, a projection of variance 1 / channels.
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.place, std=0.01)
        nn.init.normal_(self.project.weight, std=channels**-0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """Map tokens [batch, length], int64 with -1 behind the end, to vectors [batch, width] of length 1."""
        ids = ids[:, : len(self.place)]
        mask = ids >= 0
        x = self.embed(ids.clamp_min(0)) + self.place[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, mask)
        mean = (self.norm(x) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return functional.normalize(self.project(mean), dim=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return its parameters, float32, for effnet.words.tower."""
        return {name: value.detach().cpu().float().numpy() for name, value in self.state_dict().items()}


class _Layer(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=EPSILON), nn.LayerNorm(channels, eps=EPSILON)
        self.attend, self.merge = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.widen, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        count, length, channels = x.shape
        parts = self.attend(self.norm1(x)).view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # A text of no token at all must not divide by zero; its vector is not used.
        seen = (mask | ~mask.any(1, keepdim=True))[:, None, None]
        mixed = functional.scaled_dot_product_attention(*parts, attn_mask=seen)
        x = x + self.merge(mixed.transpose(1, 2).reshape(count, length, channels))
        return x + self.narrow(functional.gelu(self.widen(self.norm2(x)), approximate="tanh"))


def padded(numbers: Sequence[np.ndarray], *, longest: int) -> np.ndarray:
    """Return the tokens of texts as one array, int64 [texts, length], at most `longest`, with -1 behind the end."""
    length = max(1, min(longest, max(map(len, numbers), default=1)))
    rows = np.full((len(numbers), length), NO_TOKEN, np.int64)
    for place, row in enumerate(numbers):
        rows[place, : len(row[:length])] = row[:length]
    return rows
