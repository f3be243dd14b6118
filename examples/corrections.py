"""Correct labels without changing files: lines of corrections.jsonl, which the page of `effnet serve` writes as well.

python examples/corrections.py photos/ --right dog/3.png=cat --leave-out dog/4.png
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from effnet.data.datasets import Dataset, read_dataset


def images_by_class(dataset: Dataset) -> dict[str, int]:
    """Return the number of images of each class, in all splits together."""
    counts: Counter[str] = Counter()
    for split in (dataset.train, dataset.val, dataset.test):
        counts.update(dataset.class_names[label] for label in split.labels)
    return dict(sorted(counts.items()))


def main() -> None:
    """Write the corrections, and show what they change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder of class folders, or a manifest")
    parser.add_argument(
        "--right", action="append", default=[], metavar="PATH=LABEL", help="the right label of an image"
    )
    parser.add_argument("--leave-out", action="append", default=[], metavar="PATH", help="an image to leave out")
    parser.add_argument("--file", type=Path, default=Path("corrections.jsonl"), help="the file to append to")
    asked = parser.parse_args()

    lines = [{"path": path, "new": label} for path, _, label in (each.rpartition("=") for each in asked.right)]
    lines += [{"path": path, "new": None} for path in asked.leave_out]
    with open(asked.file, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)

    corrected = read_dataset(asked.data, corrections=asked.file)
    print(*(note for note in corrected.notes if "corrections of" in note))
    print(f"before: {images_by_class(read_dataset(asked.data))}")
    print(f"after:  {images_by_class(corrected)}")
    print(f"effnet fit {asked.data} --corrections {asked.file}")


if __name__ == "__main__":
    main()
