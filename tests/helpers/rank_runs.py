"""Tiny distributed runs that torchrun starts for test_ranks.py: python rank_runs.py FOLDER CASE..."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from tiny_runs import PREPROCESS, RECIPE, run_saving, tiny_dataset, tiny_spec

from effnet.cli.launched import says
from effnet.data.datasets import Split
from effnet.errors import EffnetError, ImageError
from effnet.nn.network import build
from effnet.progress import Step
from effnet.training.classification.learning import validate
from effnet.training.distributed.ranks import joined
from effnet.training.input import shares as portions
from effnet.training.input.batches import held_out
from effnet.training.losses import cross_entropy
from effnet.training.recipe.file import with_values

# Without dropout, whose masks differ between processes.
EVEN = with_values(RECIPE, {"model.dropout": 0.0, "model.drop_path": 0.0, "train.lr": 2e-3})
# Shares are uneven, and so is the last batch. With gradients near 0, Adam's steps could have either sign.
SYNCED = with_values(
    EVEN, {"train.sync_norms": True, "train.batch_size": 17, "optimizer.name": "sgd", "train.lr": 0.05}
)
PRECISE = with_values(EVEN, {"train.precise_norms": 21, "train.epochs": 1})


def trained(folder, ranks, recipe, **kwargs):
    """Train; the first process writes losses, history and weights, the others must write nothing."""
    losses = []

    def listen(event):
        if isinstance(event, Step):
            losses.append(event.loss)

    result = run_saving(folder / str(ranks.rank), recipe=recipe, ranks=ranks, listener=listen, **kwargs)
    tensors = {f"average.{name}": tensor for name, tensor in result.model.state_dict().items()}
    safetensors.torch.save_file(tensors, folder.parent / f"{folder.name}-{ranks.rank}.safetensors")
    (folder.parent / f"{folder.name}-{ranks.rank}.json").write_text(json.dumps([losses, result.history]))


def plain(folder, ranks):
    trained(folder, ranks, RECIPE)


def even(folder, ranks):
    trained(folder, ranks, EVEN)


def synced(folder, ranks):
    trained(folder, ranks, SYNCED)


def precise(folder, ranks):
    trained(folder, ranks, PRECISE)


def killed(folder, ranks):
    """Kill the last process with SIGKILL within its fifth step; the others train as far as they can."""
    usual, steps = cross_entropy(RECIPE.loss.label_smoothing), []

    def loss(model, batch):
        steps.append(model)
        if ranks.rank == ranks.size - 1 and len(steps) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(model, batch)

    trained(folder, ranks, RECIPE, loss_fn=loss)


def unreadable(folder, ranks):
    """Make all images of the last process unreadable."""
    if ranks.rank == ranks.size - 1:
        portions.cached_loader = lambda *args, **kwargs: _fail
    trained(folder, ranks, RECIPE)


def _fail(index):
    raise ImageError("no such image")


def broken(folder, ranks):
    """Make the loss NaN on the last process alone."""
    usual, steps = cross_entropy(), []

    def loss(model, batch):
        steps.append(model)
        return usual(model, batch) * (float("nan") if ranks.rank == ranks.size - 1 and len(steps) > 2 else 1.0)

    trained(folder, ranks, RECIPE, loss_fn=loss)


def interrupted(folder, ranks):
    """Send Ctrl-C to the last process alone."""
    usual, steps = cross_entropy(RECIPE.loss.label_smoothing), []

    def loss(model, batch):
        steps.append(model)
        if ranks.rank == ranks.size - 1 and len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return usual(model, batch)

    trained(folder, ranks, RECIPE, loss_fn=loss)


def validated(folder, ranks):
    """Validate 71 images, in uneven parts, and a single image, so that one process has none."""
    found = []
    for count in (71, 1):
        val = tiny_dataset(num=count).train
        first, last = ranks.part(count)
        part = Split(sources=val.sources[first:last], labels=val.labels[first:last])
        model, cpu = build(tiny_spec(), seed=1), torch.device("cpu")
        found.append(validate(model, held_out(part, PREPROCESS)(), PREPROCESS, cpu, ranks))
    rows = [[one.loss, one.accuracy, np.asarray(one.confusion).tolist()] for one in found]
    (folder.parent / f"validated-{ranks.rank}.json").write_text(json.dumps(rows))


CASES = (plain, even, synced, precise, killed, unreadable, broken, interrupted, validated)


def main(root, names):
    torch.set_num_threads(1)
    code = 0
    with joined() as ranks:
        for case in (case for name in names for case in CASES if case.__name__ == name):
            loader = portions.cached_loader
            try:
                # Processes that have ended together can start together again.
                case(Path(root) / case.__name__, dataclasses.replace(ranks, over=False))
            except EffnetError as error:
                code = error.exit_code
                if says(error):
                    print(f"{case.__name__}: {error}", flush=True)
            except KeyboardInterrupt:
                print(f"{case.__name__}: process {ranks.rank} interrupted", flush=True)
            portions.cached_loader = loader
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
