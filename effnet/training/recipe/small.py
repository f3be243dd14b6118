"""Recipes for images that fit on one machine."""

import dataclasses

from effnet.arch.spec import ArchSpec
from effnet.training.recipe.published import dropout_of
from effnet.training.recipe.schema import Augment, Loss, Model, Optimizer, Recipe, Schedule, Train


def cifar10(spec: ArchSpec) -> Recipe:
    """CIFAR-10 at 32 pixels: SGD and a cosine, the same for EfficientNets and ResNets, so that they can be compared.

    Command: effnet train cifar10/ --model b0 --resolution 32 --recipe cifar10, and the same with --model resnet18
    Hardware: one GPU, or a CPU and patience. Time and result: not measured here. The strides of a network for ImageNet
    reduce 32 pixels to one, so neither will reach the published accuracy of networks made for CIFAR.
    Only dropout and drop-path are those published with each network: the rest is equal, so that only the networks
    differ. Source: He et al. 2016, section 4.2 (shift and mirror, SGD; weight decay of 5e-4 as in Zagoruyko &
    Komodakis 2016); cosine of Loshchilov & Hutter 2017.
    """
    dropout = dropout_of(spec)
    return Recipe(
        name="cifar10",
        train=Train(epochs=100, batch_size=128, lr=0.1, lr_batch=128, clip_norm=2.0, ema_decay=0.998),
        model=Model(dropout=dropout, drop_path=0.1 if dropout else 0.0),
        optimizer=Optimizer(name="sgd", momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule=Schedule(name="cosine", warmup_epochs=5, final=0.0),
        augment=Augment(view="shift", flip=True),
        loss=Loss(label_smoothing=0.1),
    )


def small_data(spec: ArchSpec) -> Recipe:
    """The defaults: AdamW and a cosine for small networks and few images, from a minute to an hour on a CPU.

    Command: effnet train digits --model lite0 --resolution 32 --recipe small_data
    Hardware: 2 CPU cores. Time and result: without --recipe, train and fit start from this recipe and adapt epochs,
    batches and views to the images and the time limit; benchmarks/main_job.py measures that.
    """
    return dataclasses.replace(Recipe(), name="small_data")


def robust(spec: ArchSpec) -> Recipe:
    """For images of poor cameras: noise, blur, JPEG and RandAugment; for fine-tuning: fit.recipe=robust.

    Command: effnet train photos/ --model lite0 --recipe robust, or, from pretrained weights,
    effnet fit photos/ --max-latency-ms 5 --set fit.recipe=robust
    Hardware: 2 CPU cores. Time and result: benchmarks/robustness.py measures both against the fine-tuning that fit
    chooses. Without pretrained weights it is small_data with these augmentations.
    The last epoch counts: validation images are clean, and say nothing of what is learnt here.
    Source: Rusak et al. 2020 (arXiv 2001.06057), who train with Gaussian noise; Cubuk et al. 2020 (RandAugment). Blur
    and JPEG are ours.
    """
    recipe = small_data(spec)
    augment = dataclasses.replace(
        recipe.augment,
        noise=0.2,
        noise_share=0.5,
        blur=0.15,
        jpeg=0.15,
        policy="randaugment",
        num_ops=2,
        magnitude=9.0,
    )
    train = dataclasses.replace(recipe.train, last_counts=True)
    return dataclasses.replace(recipe, name="robust", augment=augment, train=train)
