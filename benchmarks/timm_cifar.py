"""A typical training script with timm: the baseline of benchmarks.time_to_accuracy.

`python -m benchmarks.timm_cifar DATA EPOCHS OUT`: efficientnet_b0 from scratch on images of 32 pixels with
the settings of timm's training guide: RMSProp as in TensorFlow at 0.016 per 256 images, weight decay 1e-5, dropout and
drop-path 0.2, EMA of the weights, RandAugment m9 and random erasing 0.2; timm's default cosine schedule, for so short a
run, and batches of 128. Prints accuracy and seconds as JSON.

Source: timm, training script examples, EfficientNet-B0.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import torch

from benchmarks.peers import import_timm
from benchmarks.timm_finetune import evaluate

MODEL, BATCH, SIDE = "efficientnet_b0", 128, 32
RATE, WARMUP_EPOCHS, CLASSES = 0.016 * BATCH / 256, 3, 10


def main() -> None:
    """Train, save the better of weights and EMA, and print its accuracy on DATA/test."""
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    data, epochs, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    timm = import_timm()
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.utils import ModelEmaV3

    torch.manual_seed(0)
    train, test = loaders(data)
    model = timm.create_model(MODEL, num_classes=CLASSES, drop_rate=0.2, drop_path_rate=0.2)
    optimizer = create_optimizer_v2(model, opt="rmsproptf", lr=RATE, weight_decay=1e-5, momentum=0.9, eps=1e-3)
    steps = epochs * len(train)
    schedule = CosineLRScheduler(
        optimizer, t_initial=steps, warmup_t=min(WARMUP_EPOCHS, epochs // 4) * len(train), warmup_lr_init=1e-6,
        lr_min=1e-5, t_in_epochs=False, warmup_prefix=False,
    )  # fmt: skip
    average = ModelEmaV3(model, decay=0.9999, use_warmup=True, warmup_power=0.75)
    loss_fn = LabelSmoothingCrossEntropy(0.1)
    step = 0
    for _ in range(epochs):
        model.train()
        for images, labels in train:
            loss = loss_fn(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            average.update(model, step)
            schedule.step_update(step)
    scores = [(evaluate(net, test), net) for net in (model, average.module)]
    accuracy, best = max(scores, key=lambda pair: pair[0])
    torch.save(best.state_dict(), out)
    print(json.dumps({"accuracy": accuracy, "seconds": time.perf_counter() - started}))


def loaders(data: Path):
    """Return batches of the folders train and test through timm's own data sets and transforms."""
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ImageDataset, create_transform

    common = {"input_size": SIDE, "mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    augmented = create_transform(
        **common, is_training=True, scale=(0.35, 1.0), auto_augment="rand-m9-mstd0.5", re_prob=0.2, re_mode="pixel",
        interpolation="bicubic",
    )  # fmt: skip
    plain = create_transform(**common, is_training=False, crop_pct=1.0, interpolation="bicubic")
    train = ImageDataset(str(data / "train"), transform=augmented)
    test = ImageDataset(str(data / "test"), transform=plain)
    return (
        torch.utils.data.DataLoader(train, BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True),
        torch.utils.data.DataLoader(test, BATCH, num_workers=2),
    )


if __name__ == "__main__":
    main()
