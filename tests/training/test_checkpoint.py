import dataclasses
import os
import resource

import numpy as np
import pytest
import safetensors
import torch
from tiny_runs import PREPROCESS, RECIPE, Stop, run, run_saving, tiny_dataset, tiny_spec, weights

from effnet import get_spec
from effnet.arch.scale import scale, with_total_stride
from effnet.bundle.names import CHECKPOINT
from effnet.data.datasets import Split
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError, EffnetError
from effnet.nn.network import build
from effnet.progress import Noted, Step
from effnet.training.loop import train
from effnet.training.recipe.file import with_values
from effnet.training.state.tensorfile import save_tensors

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_network_with_wide_kernels_on_colour_resumes_to_the_same_weights(tmp_path):
    """Moments have the memory layout of the parameters, channels last, which a checkpoint does not store."""
    grey = tiny_dataset()

    def colour(split):
        return Split(sources=[np.repeat(image, 3, axis=2) for image in split.sources], labels=split.labels)

    dataset = dataclasses.replace(
        grey, channels=3, train=colour(grey.train), val=colour(grey.val), test=colour(grey.test)
    )
    preprocess = Preprocess(resolution=16, crop=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    spec = with_total_stride(scale(get_spec("v2_b0", num_classes=3), phi=-16, resolution=16), 8)

    def go(folder, listener=None):
        model = build(spec, seed=0)
        return weights(
            train(model, dataset, RECIPE, preprocess, folder=folder, listener=listener, checkpoint_seconds=0.0)
        )

    def stop(event):
        if isinstance(event, Step) and event.step == 5:
            raise Stop

    whole = go(tmp_path / "whole")
    with pytest.raises(Stop):
        go(tmp_path / "parts", stop)
    resumed = go(tmp_path / "parts")
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = weights(run(tmp_path))
    events = []
    again = run(tmp_path, listener=events.append)
    assert events == []
    assert all(torch.equal(first[name], tensor) for name, tensor in weights(again).items())


def test_a_damaged_checkpoint_is_named(tmp_path):
    run(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"\0" * 100)
    with pytest.raises(BundleError, match=r"checkpoint.*cannot be resumed.*remove the folder"):
        run(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run(tmp_path)
    model = build(scale(tiny_spec(), width=2.0, resolution=16), seed=0)
    with pytest.raises(BundleError, match="cannot be resumed"):
        train(model, tiny_dataset(), RECIPE, PREPROCESS, folder=tmp_path)


def test_a_checkpoint_is_replaced_whole(tmp_path, monkeypatch):
    run(tmp_path)
    good = (tmp_path / CHECKPOINT).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EffnetError, match="No space left on device; the previous file is intact"):
        save_tensors({"x": torch.zeros(3)}, tmp_path / CHECKPOINT)
    assert (tmp_path / CHECKPOINT).read_bytes() == good


def test_a_file_is_what_safetensors_reads_whatever_the_layout_of_its_tensors(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "wide": torch.randn(4, 3, 5, 5, generator=generator).to(memory_format=torch.channels_last),
        "turned": torch.randn(6, 4, generator=generator).T,
        "half": torch.randn(3, generator=generator).half(),
        "brain": torch.randn(5, generator=generator).bfloat16(),
        "count": torch.tensor(7),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "nothing": torch.zeros(0, 4, dtype=torch.float64),
    }
    save_tensors(tensors, tmp_path / "x.safetensors", metadata={"position": '{"step": 3}', "name": "é"})
    with safetensors.safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() == {"position": '{"step": 3}', "name": "é"}
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


KEEPING = with_values(RECIPE, {"train.keep_checkpoints": 3})


def interrupted(folder, recipe, at):
    def stop(event):
        if isinstance(event, Step) and event.step == at:
            raise Stop

    with pytest.raises(Stop):
        run_saving(folder, recipe=recipe, listener=stop)


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("checkpoint*"))


def test_the_last_checkpoints_stay_and_one_before_a_damaged_one_is_resumed(tmp_path):
    whole = weights(run_saving(tmp_path / "whole"))
    folder = tmp_path / "parts"
    interrupted(folder, KEEPING, at=6)
    earlier = ["checkpoint-00000003.safetensors", "checkpoint-00000004.safetensors"]
    assert checkpoints(folder) == [*earlier, CHECKPOINT]
    newest = (folder / CHECKPOINT).read_bytes()
    (folder / CHECKPOINT).write_bytes(newest[: len(newest) // 2])
    (folder / earlier[1]).write_bytes(b"")
    events = []
    resumed = weights(run_saving(folder, recipe=KEEPING, listener=events.append))
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())
    assert next(event.step for event in events if isinstance(event, Step)) == 4
    (note,) = [event.text for event in events if isinstance(event, Noted)]
    assert f"continuing from {earlier[0]}, at step 3" in note
    assert str(folder / CHECKPOINT) in note
    assert len(checkpoints(folder)) == 3


def test_a_single_checkpoint_is_kept_where_no_more_are_asked_for(tmp_path):
    run_saving(tmp_path)
    assert checkpoints(tmp_path) == [CHECKPOINT]


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    """The disk holds half a checkpoint; once there is space, the run resumes to the same weights."""
    whole = weights(run_saving(tmp_path / "whole"))
    folder = tmp_path / "full"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event):
        if isinstance(event, Step) and event.step == 5:
            size = (folder / CHECKPOINT).stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))

    try:
        with pytest.raises(EffnetError, match=r"(?s)could not be written: File too large.*is intact.*--resume"):
            run_saving(folder, listener=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if hard < 0 else hard, hard))
    assert not list(folder.glob("*.tmp"))
    events = []
    resumed = weights(run_saving(folder, listener=events.append))
    assert next(event.step for event in events if isinstance(event, Step)) == 5
    assert all(torch.equal(whole[name], tensor) for name, tensor in resumed.items())
