"""Clips with a drawn truth, and a bundle that knows their colours."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

COLOURS = {"blue": (30, 60, 220), "green": (40, 190, 50), "red": (220, 40, 30)}
"""The classes of `colour_bundle`, in their order, and their colours."""

_BASE = 1000


def plain(colour: str, *, width: int = 64, height: int = 48) -> np.ndarray:
    """Return an image of one colour, uint8 [height, width, 3]."""
    return np.broadcast_to(np.array(COLOURS[colour], np.uint8), (height, width, 3)).copy()


def with_shape(
    place: tuple[float, float], *, size: float = 0.2, colour: str = "red", width: int = 160, height: int = 120
) -> np.ndarray:
    """Return a grey image with a rectangle around a place, both in shares of the sides."""
    image = np.full((height, width, 3), 128, np.uint8)
    left, right = (round(width * (place[0] + sign * size / 2)) for sign in (-1, 1))
    top, bottom = (round(height * (place[1] + sign * size / 2)) for sign in (-1, 1))
    image[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = COLOURS[colour]
    return image


def write_clip(
    path: Path,
    images: Iterable[np.ndarray],
    *,
    fps: int = 10,
    codec: str = "mpeg4",
    times: Sequence[float] | None = None,
) -> Path:
    """Write images as a video; `times` are those of the frames in seconds, by default `fps` a second."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=_BASE if times else fps)
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for number, image in enumerate(images):
            if not number:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(_BASE * times[number]) if times else number
            frame.time_base = Fraction(1, _BASE if times else fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_colour_bundle(folder: Path) -> Path:
    """Write a classifier of COLOURS: a tiny untrained network whose last layer is fitted in closed form."""
    import torch
    from strategies import build_trained

    import effnet
    from effnet.arch.scale import with_total_stride
    from effnet.bundle.config import ModelConfig
    from effnet.bundle.weights import save_bundle, state_arrays
    from effnet.data.preprocess import Preprocess
    from effnet.runtimes.onnxruntime.writer import export_onnx

    spec = effnet.get_spec("b0", num_classes=len(COLOURS))
    spec = with_total_stride(effnet.scale(spec, phi=-20, resolution=16), 8)
    mean, std = (0.4, 0.4, 0.4), (0.3, 0.3, 0.3)
    network = build_trained(spec, resolution=16).eval()
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(COLOURS)), 40)
    colours = np.array(list(COLOURS.values()))[labels] + rng.normal(0, 12, (len(labels), 3))
    pixels = np.broadcast_to(colours[:, :, None, None], (len(labels), 3, 16, 16)) / 255
    normal = (pixels - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    found: list[np.ndarray] = []
    hook = network.classifier.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].numpy().copy()))
    with torch.no_grad():
        network(torch.tensor(normal, dtype=torch.float32))
        hook.remove()
        rows = np.concatenate([found[0], np.ones((len(labels), 1))], axis=1)
        wanted = 8 * np.eye(len(COLOURS))[labels]
        weights = np.linalg.solve(rows.T @ rows + 1e-3 * np.eye(rows.shape[1]), rows.T @ wanted)
        network.classifier.weight.copy_(torch.tensor(weights[:-1].T, dtype=torch.float32))
        network.classifier.bias.copy_(torch.tensor(weights[-1], dtype=torch.float32))
    config = ModelConfig(
        arch=spec, preprocess=Preprocess(resolution=16, mean=mean, std=std), class_names=tuple(COLOURS)
    )
    state = state_arrays(network)
    folder.mkdir(parents=True, exist_ok=True)
    save_bundle(folder, config, state)
    export_onnx(folder, config, state)
    return folder
