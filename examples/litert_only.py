"""A finished model in LiteRT without effnet: effnet.json in its file holds class names and preprocessing.

python examples/litert_only.py effnet-photos/model.tflite cat.jpg dog.jpg
"""

import argparse
import json
import math
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
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

    with zipfile.ZipFile(args.model) as files:  # the metadata are a zip archive at the end of the file
        texts = json.loads(files.read("effnet.json"))
    names, preprocess = texts["class_names"], texts["preprocess"]
    interpreter = Interpreter(model_path=args.model, num_threads=1)
    interpreter.allocate_tensors()
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    for path in args.images:
        interpreter.set_tensor(image["index"], prepare(path, preprocess)[None])
        interpreter.invoke()
        row = interpreter.get_tensor(output["index"])[0]
        print(f"{path}: {names[row.argmax()]} {row.max():.1%}")


if __name__ == "__main__":
    main()
