"""A split as a map-style data set for torch's DataLoader; torch itself is not needed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from effnet.data.sources.source import Source, encoded


class ReadsFiles(ABC):
    """A transform that decodes images itself: it takes a path, the bytes of a file, or a uint8 array."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """The channels of the arrays that it takes."""

    @abstractmethod
    def __call__(self, image: str | bytes | np.ndarray) -> Any:
        """Return the transformed image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """The images and labels of a split by index: (transform(image), label); see `Split.to_torch`.

    `load` decodes the image of an index for a number of channels.
    """

    sources: Sequence[Source]
    labels: np.ndarray
    load: Callable[..., np.ndarray]
    transform: Callable[[Any], Any] | None
    channels: int

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        source, label = self.sources[index], self.labels[index]  # an IndexError ends an iteration
        label = label.item() if isinstance(label, np.generic) else label
        if isinstance(self.transform, ReadsFiles):
            if isinstance(source, np.ndarray):
                return self.transform(self.load(index, channels=self.transform.channels)), label
            return self.transform(encoded(source)), label
        pixels = self.load(index, channels=self.channels)
        image = Image.fromarray(pixels[..., 0] if self.channels == 1 else np.ascontiguousarray(pixels))
        return (image if self.transform is None else self.transform(image)), label
