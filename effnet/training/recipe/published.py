"""Recipes for ImageNet, as published with the networks."""

import dataclasses
from typing import Any

import numpy as np

from effnet.arch.catalog import default_dropout
from effnet.arch.spec import ArchSpec
from effnet.training.recipe.schema import Augment, Loss, Model, Optimizer, Recipe, Schedule, Stage, Train

# B0's, for networks that were not published.
_DROPOUT = 0.2
# Training resolution, magnitude of RandAugment at the end (0: AutoAugment), alpha of mixup and cutmix at the end.
# Source: google/automl, efficientnetv2/effnetv2_configs.py.
_V2 = {
    "v2_s": (300, 10, 0.0), "v2_m": (384, 15, 0.2), "v2_l": (384, 20, 0.5), "v2_xl": (384, 20, 0.5),
    "v2_b0": (192, 0, 0.0), "v2_b1": (192, 0, 0.0), "v2_b2": (208, 0, 0.0), "v2_b3": (240, 0, 0.0),
}  # fmt: skip
_V2_STAGES, _V2_LEAST = 4, 128
# Unlabelled images for each labelled one, how much longer training is, magnitude of RandAugment (0: crops and flips
# alone). Source: google-research/noisystudent, local_scripts/imagenet/run.sh.
_NOISY_STUDENT = {
    "b0": (1, 2, 0), "b1": (3, 2, 0), "b2": (3, 2, 6), "b3": (3, 2, 12), "b4": (3, 2, 15), "b5": (3, 1, 18),
    "b6": (3, 1, 24), "b7": (3, 1, 27),
}  # fmt: skip


def imagenet_v1(spec: ArchSpec) -> Recipe:
    """EfficientNet (2019): RMSProp as in TensorFlow, AutoAugment, 350 epochs in batches of 2048.

    Command: effnet train imagenet/ --model b0 --recipe imagenet_v1 --set train.micro_batch=256
    Hardware: published on TPUs, whose cores each computed BatchNorm statistics of their own images.
    Time: not measured here. Expected: B0 77.1 %, B4 82.9 %, B7 84.3 %, not measured here. They used early stopping on
    25,022 images of the training split (76.3 % for B0 without); here the validation split is used.
    A difference, here and in the other recipes: the classifier is initialised with zeros, which hardly matters for a
    thousand classes and helps with ten; --set model.zero_classifier=false initialises it as published.
    Source: arXiv 1905.11946v5, section 5.2; tensorflow/tpu, efficientnet/main.py and utils.py.
    """
    return Recipe(
        name="imagenet_v1",
        train=Train(epochs=350, batch_size=2048, lr=0.016, lr_batch=256, clip_norm=0.0, ema_decay=0.9999),
        model=Model(dropout=dropout_of(spec), drop_path=0.2, norm_momentum=0.01),
        optimizer=Optimizer(
            name="rmsprop_tf", momentum=0.9, decay=0.9, eps=1e-3, weight_decay=1e-5, decay_vectors=True
        ),
        schedule=Schedule(name="step", warmup_epochs=5, decay_epochs=2.4, decay_rate=0.97),
        augment=Augment(view="crop", min_area=0.08, flip=True, interpolation="bicubic", policy="autoaugment"),
        loss=Loss(label_smoothing=0.1),
    )


def imagenet_v2(spec: ArchSpec) -> Recipe:
    """EfficientNetV2 (2021): image size, RandAugment and mixup grow in four stages, 350 epochs in batches of 4096.

    Command: effnet train imagenet/ --model v2_s --recipe imagenet_v2 --set train.micro_batch=128
    Hardware: published on TPUs. Time: published 7.1 h (S), 13 h (M) and 24 h (L) on 32 cores; not measured here.
    Expected: S 83.9 %, M 85.2 %, L 85.7 % (the code's README); others report 83.5 % (S) and 84.5 % (M) with it; not
    measured here. It is the code's recipe: in the paper's table dropout grows too, and the numbers differ.
    A network that is not a V2 is trained like S, up to its own resolution.
    Source: arXiv 2104.00298; google/automl, efficientnetv2/hparams.py, effnetv2_configs.py and main.py.
    """
    recipe = imagenet_v1(spec)
    resolution, magnitude, alpha = _V2.get(spec.lineage.network, (spec.resolution, 10, 0.0))
    least = _V2_LEAST if resolution > _V2_LEAST else resolution // 2
    magnitudes: Any = np.linspace(5, magnitude, _V2_STAGES) if magnitude else [None] * _V2_STAGES
    stages = tuple(
        Stage(
            resolution=max(8, int(least + (resolution - least) * (number + 1) / _V2_STAGES)),
            magnitude=None if magnitudes[number] is None else round(float(magnitudes[number]), 4),
            mixup=round(alpha * number / (_V2_STAGES - 1), 4),
            cutmix=round(alpha * number / (_V2_STAGES - 1), 4),
        )
        for number in range(_V2_STAGES)
    )
    policy: dict[str, Any] = {"policy": "randaugment", "num_ops": 2, "magnitude": float(magnitude)} if magnitude else {}
    return dataclasses.replace(
        recipe,
        name="imagenet_v2",
        train=dataclasses.replace(recipe.train, batch_size=4096),
        model=dataclasses.replace(recipe.model, norm_momentum=0.1),
        optimizer=dataclasses.replace(recipe.optimizer, decay_vectors=False),
        augment=dataclasses.replace(recipe.augment, mixup=alpha, cutmix=alpha, **policy),
        stages=stages,
    )


def noisy_student(spec: ArchSpec) -> Recipe:
    """Noisy Student (2020): a teacher's soft labels, RandAugment by size, 350 or 700 epochs in batches of 4096.

    Command: effnet train images/ --model b0 --recipe noisy_student --set loss.teacher=TEACHER
    Hardware: published on TPUs. Time: not measured here. Expected with 81 million images of JFT: B0 78.8 %, B1 81.5 %,
    B2 82.4 %, B3 84.1 %, B4 85.3 %, B5 86.1 %, B6 86.4 %, B7 86.9 %, not measured here.
    Published with 1 (B0) or 3 unlabelled images for each labelled one, whose loss is that of the teacher's soft labels
    at temperature 1; batches of 4096 (the code's; the paper's are 2048) count the labelled ones. Here every image has a
    label and the teacher's: loss.teacher_weight, 1/2 or 3/4, gives the teacher as much weight. The learning rate decays
    every 2.4 epochs, or 4.8 of training twice as long. The last 1.5 epochs at a larger resolution are left out. A
    network that is not one of B0 to B7 is trained like B0. `effnet fit --unlabelled` is the method for small data.
    Source: arXiv 1911.04252; google-research/noisystudent, local_scripts/imagenet/run.sh and main.py.
    """
    recipe = imagenet_v1(spec)
    ratio, longer, magnitude = _NOISY_STUDENT.get(spec.lineage.network, _NOISY_STUDENT["b0"])
    policy: dict[str, Any] = {"policy": "none"}
    if magnitude:
        policy = {"policy": "randaugment", "num_ops": 2, "magnitude": float(magnitude)}
    return dataclasses.replace(
        recipe,
        name="noisy_student",
        train=dataclasses.replace(recipe.train, epochs=350 * longer, batch_size=4096),
        schedule=dataclasses.replace(recipe.schedule, decay_epochs=2.4 * longer),
        augment=dataclasses.replace(recipe.augment, **policy),
        loss=dataclasses.replace(recipe.loss, teacher_weight=ratio / (1 + ratio), temperature=1.0),
    )


def imagenet_timm_ra(spec: ArchSpec) -> Recipe:
    """timm's RandAugment recipe (2020): RMSProp, random erasing, 450 epochs in batches of 768, on two GPUs.

    Command: effnet train imagenet/ --model timm/efficientnet_b0 --recipe imagenet_timm_ra --set train.micro_batch=384
    Hardware: published on 2 GPUs with 384 images each, in mixed precision. Time: not measured here.
    Expected: B0 77.7 %, B2 80.4 % (timm's documentation); not measured here. timm's moving average has no ramp, and its
    warm-up of 3 epochs and weight decay of kernels only were its defaults then.
    Source: timm, hfdocs/source/training_script.mdx, "EfficientNet-B0 with RandAugment".
    """
    return Recipe(
        name="imagenet_timm_ra",
        train=Train(epochs=450, batch_size=768, lr=0.016, lr_batch=256, clip_norm=0.0, ema_decay=0.9999),
        model=Model(dropout=dropout_of(spec), drop_path=0.2, norm_momentum=0.1),
        optimizer=Optimizer(name="rmsprop_tf", momentum=0.9, decay=0.9, eps=1e-3, weight_decay=1e-5),
        schedule=Schedule(name="step", warmup_epochs=3, warmup_from=1e-6 / 0.048, decay_epochs=2.4, decay_rate=0.97),
        augment=Augment(
            view="crop",
            min_area=0.08,
            flip=True,
            policy="randaugment_timm",
            num_ops=2,
            magnitude=9.0,
            magnitude_std=0.5,
            erasing=0.2,
            erasing_fill="noise",
        ),
        loss=Loss(label_smoothing=0.1),
    )


def advprop(spec: ArchSpec) -> Recipe:
    """Fast AdvProp (2022): a fifth of each batch is attacked, and trained with BatchNorm of its own; from scratch.

    Command: effnet train imagenet/ --model b0 --recipe advprop --set train.micro_batch=256
    Hardware: published on 4 GPUs for ResNet-50, 105 epochs in batches of 256. Time: a step takes about 1.2 times as
    long as without; not measured here. Expected for B0: little; AdvProp, which takes 7 times as long, gives it +0.5
    points as published and +0.2 as timm measures its weights, and larger networks more. Not measured here.
    Everything but augment.adversarial is imagenet_v1, which AdvProp's EfficientNets were trained with. It needs
    BatchNorm that learns: weights whose BatchNorm is folded away or frozen cannot be trained with it.
    Source: Mei et al. 2022 (arXiv 2204.09838); tingxueronghua/pytorch-classification-advprop, the script
    of fast_advprop: clean and attacked images 4 : 1, one step of 1/255, and weights 1, 0.5 and 0.5 of the losses of
    clean images, of the attack's own pass, and of attacked images.
    """
    recipe = imagenet_v1(spec)
    augment = dataclasses.replace(recipe.augment, adversarial=0.2, adversarial_eps=1.0)
    return dataclasses.replace(recipe, name="advprop", augment=augment)


def dropout_of(spec: ArchSpec) -> float:
    """Return the published dropout of the spec's network; B0's if it was not published."""
    network = spec.lineage.network
    return default_dropout(network) if network else _DROPOUT
