"""A finished model in OpenVINO without effnet: class names and preprocessing are in its metadata.

python examples/openvino_only.py effnet-photos/model.xml cat.jpg dog.jpg

OpenVINO sends telemetry to Intel on each import; run `opt_in_out --opt_out` once to disable it.
"""

import argparse
import json
import math

import numpy as np
import openvino
from PIL import Image, ImageOps


def prepare(path: str, preprocess: dict) -> np.ndarray:
    """Return the image as uint8 [resolution, resolution, channels]: its middle, or squashed or padded whole."""
    side, mode = preprocess["resolution"], preprocess["mode"]
    if mode not in ("center", "squash", "pad"):
        raise SystemExit(f"the model's images are resized as {mode!r}, which this example does not support")
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("L" if len(preprocess["mean"]) == 1 else "RGB")
    shorter, longer = math.floor(side / preprocess["crop"]), max(image.size)
    size = tuple(max(side, int(shorter / min(image.size) * pixels)) for pixels in image.size)
    if mode != "center":
        size = tuple(shorter if mode == "squash" else max(1, side * pixels // longer) for pixels in image.size)
    resampling = Image.Resampling[preprocess["interpolation"].upper()]
    square = Image.new(image.mode, (side, side), tuple(math.floor(255 * mean + 0.5) for mean in preprocess["mean"]))
    square.paste(image.resize(size, resampling), tuple(-round((pixels - side) / 2) for pixels in size))
    return np.asarray(square, np.uint8).reshape(side, side, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("images", nargs="+")
    args = parser.parse_args()

    # OpenVINO's default is bf16 on processors that support it; the probabilities were checked in fp32.
    core = openvino.Core()
    file = core.read_model(args.model)
    names, preprocess = (json.loads(file.get_rt_info(["effnet", n]).astype(str)) for n in ("class_names", "preprocess"))
    model = core.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = np.stack([prepare(path, preprocess) for path in args.images])
    probabilities = model([images])[0]
    for path, row in zip(args.images, probabilities, strict=True):
        print(f"{path}: {names[row.argmax()]} {row.max():.1%}")


if __name__ == "__main__":
    main()
