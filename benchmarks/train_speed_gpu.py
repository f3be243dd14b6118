"""`python -m benchmarks.train_speed_gpu`: training images per second on a GPU at 224 pixels, B0 and V2-S, against timm.

Both sides in bfloat16 with channels last, AdamW, the same random images, in turn; the figure is effnet's speed over
timm's, the lower of the two networks. The roofline is printed too: the speed of a step if each feature map of a
convolution, BatchNorm or activation were moved through memory as few times as possible, at the measured bandwidth.
Without a GPU it exits with code 2. It has not been measured yet.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.harness import finish, options
from benchmarks.train_steps import batch
from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost

GOAL, SIDE, SIZE = 1.5, 224, 128
NETWORKS = {"b0": "efficientnet_b0", "v2_s": "tf_efficientnetv2_s"}
# A convolution's output is written once and read once forward (by BatchNorm and activation at once), and once backward,
# where its gradient is written and read: five transfers of two bytes are the minimum of two-pass BatchNorm.
_TRIPS, _BYTES, _STEPS = 5, 2, 10
_BANDWIDTH_BYTES = 2**30


def main() -> None:
    """Time both sides in turn for each network."""
    args = options(__doc__ or "", n=7)
    if not torch.cuda.is_available():
        print("this benchmark needs a GPU that torch can use; there is none", file=sys.stderr)
        sys.exit(2)
    device = torch.device("cuda")
    bandwidth = bandwidth_of(device)
    samples: dict[str, list[float]] = {"gigabytes_per_second": [bandwidth / 1e9]}
    ratios, rooflines = {}, {}
    for name, peer in NETWORKS.items():
        steps = make_steps(name, peer, device, size=SIZE, side=SIDE)
        for side, step in steps.items():
            step()
            samples[f"{side}_{name}"] = []
        for _ in range(args.n):
            for side, step in steps.items():
                samples[f"{side}_{name}"].append(SIZE * _STEPS / seconds(step, device))
        ours, theirs = (statistics.median(samples[f"{side}_{name}"]) for side in ("effnet", "timm"))
        ratios[name], rooflines[name] = ours / theirs, roofline(name, bandwidth)
        print(f"{name}: {ours:.0f} images/s against {theirs:.0f}; memory alone would allow {rooflines[name]:.0f}")
    finish(
        "train_speed_gpu", args, figure=min(ratios.values()), goal=GOAL, unit="times timm's speed", better="higher",
        samples=samples, details={"ratios": ratios, "roofline_images_per_second": rooflines, "batch": SIZE},
    )  # fmt: skip


def make_steps(name: str, peer: str, device: torch.device, *, size: int, side: int) -> dict[str, Callable[[], None]]:
    """Return a training step of each side, warmed up, on the same images."""
    from benchmarks.peers import import_timm
    from effnet.nn.network import build
    from effnet.training.recipe.schema import Recipe
    from effnet.training.state.state import make_state

    images, labels = (tensor.to(device) for tensor in batch(size, side))
    images = images.to(memory_format=torch.channels_last)
    state = make_state(build(get_spec(name), seed=0), Recipe(), device)
    theirs = import_timm().create_model(peer).to(device, memory_format=torch.channels_last).train()
    pairs = {
        "effnet": (state.model.train(), state.optimizer),
        "timm": (theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-3, fused=device.type == "cuda")),
    }

    def stepping(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        def step() -> None:
            with torch.autocast(device.type, torch.bfloat16):
                loss = functional.cross_entropy(net(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return step

    return {side_name: stepping(*pair) for side_name, pair in pairs.items()}


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Return the time of a few steps, until the device has done them."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(_STEPS):
        step()
    wait()
    return time.perf_counter() - start


def bandwidth_of(device: torch.device) -> float:
    """Return bytes per second of a large copy on the device, read and write counted."""
    source = torch.empty(_BANDWIDTH_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * _BANDWIDTH_BYTES * _STEPS / seconds(lambda: target.copy_(source), device)


def roofline(name: str, bandwidth: float) -> float:
    """Return images per second of a training step that only moves its feature maps."""
    return bandwidth / (_TRIPS * _BYTES * cost(get_spec(name), resolution=SIDE).activations)


if __name__ == "__main__":
    main()
