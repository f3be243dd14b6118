"""Find the images of a folder that are most similar to a query, by the embeddings of a bundle.

effnet export effnet-photos --features
python examples/find_similar.py effnet-photos photos/ cat.jpg
"""

import argparse

import numpy as np

from effnet import load
from effnet.data.sources.folder import list_images
from effnet.errors import ImageError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("folder")
    parser.add_argument("query")
    parser.add_argument("--top", type=int, default=5)
    args = parser.parse_args()

    model = load(args.bundle)
    (query,) = model.embed(args.query)
    paths, vectors = [], []
    for path in list_images(args.folder).paths:
        try:
            vectors.append(model.embed(path)[0])
            paths.append(path)
        except ImageError as error:
            print(f"left out: {error}")
    # For vectors of length 1 the dot product is the cosine similarity.
    cosines = np.stack(vectors) @ query
    for place in np.argsort(-cosines)[: args.top]:
        print(f"{cosines[place]:.3f} {paths[place]}")


if __name__ == "__main__":
    main()
