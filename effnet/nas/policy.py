"""How a search divides its time and what it trains: values that only programs and tests replace."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The extent and the shares of a search; the defaults are production's.

    A generation has `size` networks, and a search `fewest` to `most` of them. It begins with `scaled` networks of its
    own space and `references`, which fit would choose from; its final has at most `finalists` beside the best scaled
    network, each trained with at most `seeds` seeds, for at most `final_epochs` epochs.

    A short training has at most `most_images` images, since more change no order, and at least `least_images`, since
    fewer rank nothing. A data set needs `least_train` training and `least_val` validation images.

    Short trainings take the share `searching` of the minutes, the final `deciding`, the proof of the bundle `proving`;
    the rest is planning's. The winner's training in the final is its last one, and each has at least the share
    `least_worth` of the worthwhile epochs: in searches with shorter finals (CIFAR-10 at 0.5 ms, no record), networks
    that led after 20,000 or 90,000 images were overtaken later. Trainings that are compared take equal time: `timed`
    networks are timed, to predict that of the others. The networks that latencies are predicted from are the base
    scaled by `phis`, then random ones of the space in rounds of `measured`, until predictions are good.

    A supernet is trained on `device`, by default on CUDA alone.
    """

    size: int = 5
    fewest: int = 10
    most: int = 200
    scaled: int = 3
    references: int = 6
    finalists: int = 3
    seeds: int = 2
    final_epochs: int | None = None
    most_images: int = 4000
    least_images: int = 800
    least_train: int = 1000
    least_val: int = 150
    least_worth: float = 0.25
    searching: float = 0.12
    deciding: float = 0.78
    proving: float = 0.04
    timed: int = 8
    phis: tuple[float, ...] = (-16.0, -10.0, -7.0, -5.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0)
    measured: tuple[int, ...] = (8, 8, 8)
    device: str = ""


USUAL = Policy()
