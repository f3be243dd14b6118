"""List images by how known they are to a bundle, the least known first: candidates for a new class.

python examples/least_known.py model/ photos/ --most 20
"""

import argparse
from pathlib import Path

import numpy as np

import effnet
from effnet.data.sources.folder import list_images
from effnet.errors import ImageError

BATCH = 16


def scores_of(model: effnet.Predictor, paths: list[str]) -> tuple[list[str], np.ndarray]:
    """Return the images that can be read and how known each is, float32 [images]: more is more known."""
    readable, prepared = [], []
    for path in paths:
        try:
            prepared.append(model.prepare(path))
        except ImageError as error:
            print(f"{path}: {error}")
            continue
        readable.append(path)
    parts = [model.scores(np.stack(prepared[at : at + BATCH])) for at in range(0, len(prepared), BATCH)]
    return readable, np.concatenate([np.empty(0, np.float32), *parts])


def main() -> None:
    """Print the score, the answer and the path of each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a bundle of effnet fit --set fit.unknown_score=auto, or another")
    parser.add_argument("folder", help="images, in subfolders too")
    parser.add_argument("--most", type=int, default=20, help="the number of images to list")
    asked = parser.parse_args()

    model = effnet.load(asked.bundle)
    score = model.config.known if model.scored else None
    print(f"by {score.title if score else 'the largest probability'}:")
    paths, scores = scores_of(model, list(list_images(asked.folder).paths))
    for index in np.argsort(scores)[: asked.most]:
        (answer,) = model.predict(paths[index], top=1)
        print(f"{scores[index]:.4g}  {answer.label}  {paths[index]}")


if __name__ == "__main__":
    main()
