"""A typical fine-tuning script with timm for some minutes: the baseline of benchmarks.finetune_minutes.

`python -m benchmarks.timm_minutes CSV WEIGHTS SIDE MINUTES SEED`: AdamW at 3e-4 under one cycle, batches of 32, timm's
own transforms, BatchNorm frozen, as many epochs as the first one says that fit. CSV has path, label and split; prints
the right answers on test, of the epoch with the best validation, as JSON.
"""

import copy
import csv
import json
import sys
import time
import warnings
from pathlib import Path

import torch
from PIL import Image

from benchmarks.peers import import_timm
from benchmarks.timm_finetune import BATCH, MODEL, RATE, evaluate, train_epoch

MOST_EPOCHS = 30


class Rows(torch.utils.data.Dataset):
    """The images of a split."""

    def __init__(self, rows, classes, transform) -> None:
        self.rows, self.classes, self.transform = rows, classes, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        path, label = self.rows[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), self.classes.index(label)


def main() -> None:
    """Fine-tune for the minutes, and print the answers."""
    warnings.simplefilter("ignore")
    started, (table, weights), (side, minutes, seed) = time.monotonic(), sys.argv[1:3], map(float, sys.argv[3:6])
    timm = import_timm()
    from safetensors.torch import load_file
    from timm.data import create_transform, resolve_data_config

    torch.manual_seed(int(seed))
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    model = timm.create_model(MODEL, num_classes=0)
    model.load_state_dict(load_file(weights))
    config = resolve_data_config({}, model=model)
    loaders = {}
    for part in ("train", "val", "test"):
        transform = create_transform(
            input_size=int(side), is_training=part == "train", mean=config["mean"], std=config["std"],
            interpolation=config["interpolation"], crop_pct=1.0,
        )  # fmt: skip
        own = [(Path(table).parent / row["path"], row["label"]) for row in rows if row["split"] == part]
        images = Rows(own, classes, transform)
        loaders[part] = torch.utils.data.DataLoader(
            images, BATCH, shuffle=part == "train", drop_last=part == "train", num_workers=2
        )
    model.reset_classifier(len(classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    steps, best, kept, epochs, epoch, begun = len(loaders["train"]), -1.0, None, MOST_EPOCHS, 0, time.monotonic()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=MOST_EPOCHS * steps)
    while epoch < epochs:
        train_epoch(model, loaders["train"], optimizer, schedule)
        accuracy, epoch = evaluate(model, loaders["val"]), epoch + 1
        if accuracy >= best:
            best, kept = accuracy, copy.deepcopy(model.state_dict())
        if epoch == 1:
            # The schedule ends with the epochs that fit: it begins anew, one epoch on.
            each = time.monotonic() - begun
            epochs = max(1, min(MOST_EPOCHS, int((60 * minutes - (begun - started)) / each)))
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=epochs * steps + 1)
            for _ in range(steps):
                schedule.step()
    model.load_state_dict(kept)
    print(json.dumps({"right": right(model, loaders["test"]), "epochs": epochs, "seconds": time.monotonic() - started}))


@torch.inference_mode()
def right(model, batches) -> list[int]:
    """Return 1 for each image that is answered right, else 0."""
    model.eval()
    return [int(one) for images, labels in batches for one in model(images).argmax(1) == labels]


if __name__ == "__main__":
    main()
