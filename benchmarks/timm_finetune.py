"""A typical fine-tuning script with timm: the baseline of benchmarks.transfer.

`python -m benchmarks.timm_finetune DATA WEIGHTS OUT`: AdamW at 3e-4 under one cycle, 224 pixels, batches of 32, timm's
own transforms, BatchNorm frozen, 5 epochs. DATA has the folders train and val; prints the accuracy on val.
"""

import json
import sys
import warnings
from pathlib import Path

import torch

from benchmarks.peers import import_timm

MODEL, EPOCHS, BATCH, RATE, SIDE = "tf_efficientnet_lite0", 5, 32, 3e-4, 224


def main() -> None:
    """Fine-tune, save the model and print its accuracy as JSON."""
    warnings.simplefilter("ignore")
    data, weights, out = map(Path, sys.argv[1:4])
    timm = import_timm()
    from safetensors.torch import load_file
    from timm.data import ImageDataset, create_transform, resolve_data_config

    torch.manual_seed(0)
    model = timm.create_model(MODEL, num_classes=0)
    model.load_state_dict(load_file(weights))
    config = resolve_data_config({}, model=model)
    sets = {}
    for part, training in (("train", True), ("val", False)):
        transform = create_transform(
            input_size=SIDE, is_training=training, mean=config["mean"], std=config["std"],
            interpolation=config["interpolation"], crop_pct=config["crop_pct"],
        )  # fmt: skip
        sets[part] = ImageDataset(str(data / part), transform=transform)
    model.reset_classifier(len(sets["train"].reader.class_to_idx))
    train = torch.utils.data.DataLoader(sets["train"], BATCH, shuffle=True, drop_last=True, num_workers=2)
    val = torch.utils.data.DataLoader(sets["val"], BATCH, num_workers=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=EPOCHS * len(train))
    for _ in range(EPOCHS):
        train_epoch(model, train, optimizer, schedule)
    accuracy = evaluate(model, val)
    torch.save(model.state_dict(), out)
    print(json.dumps({"accuracy": accuracy}))


def train_epoch(model, batches, optimizer, schedule) -> None:
    """Train one epoch, with BatchNorm in evaluation mode."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    for images, labels in batches:
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def evaluate(model, batches) -> float:
    """Return the accuracy."""
    model.eval()
    right = total = 0
    for images, labels in batches:
        right += (model(images).argmax(1) == labels).sum().item()
        total += len(labels)
    return right / total


if __name__ == "__main__":
    main()
