"""A finished model in ExecuTorch without effnet: class names and preprocessing are methods of its file.

python examples/executorch_only.py effnet-photos/model.pte cat.jpg dog.jpg
"""

import argparse
import json
import math

import numpy as np
import torch
from executorch.runtime import Runtime
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

    program = Runtime.get().load_program(args.model)
    names, preprocess = (json.loads(program.load_method(n).execute([])[0]) for n in ("class_names", "preprocess"))
    forward = program.load_method("forward")
    for path in args.images:
        image = torch.from_numpy(prepare(path, preprocess)[None].copy())
        (probabilities,) = forward.execute([image])
        best = int(probabilities[0].argmax())
        print(f"{path}: {names[best]} {float(probabilities[0, best]):.1%}")


if __name__ == "__main__":
    main()
