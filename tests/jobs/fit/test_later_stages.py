"""What is trained in the minutes: the later stages on kept feature maps, the whole network, or both."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from procedures import QUICK

from effnet import fit
from effnet.arch.catalog import get_spec
from effnet.errors import InputError
from effnet.jobs.fit.transfer.later_stages import with_later_stages
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe

SPEC = dataclasses.replace(get_spec("lite0"), resolution=96, num_classes=10)
RECIPE = with_values(Recipe(), {"train.epochs": 30})


def planned(monkeypatch, seconds, *, num_train=1000, recipe=RECIPE):
    """Return the recipe for a machine that trains 100 images a second, and 400 on the maps of three stages."""

    def speed(spec, *, kept_stages):
        assert kept_stages == 3
        return 400.0

    monkeypatch.setattr("effnet.jobs.fit.transfer.later_stages.train_speed", speed)
    return with_later_stages(
        recipe, SPEC, num_train=num_train, seconds=seconds, whole=100.0, epoch_seconds=num_train / 100, folder=Path()
    )


# The maps of four views take 4 x 1,000 x (1/100 - 1/400) / 3 = 10 s, an epoch on them 2.5 s, one of all stages 10 s.
@pytest.mark.parametrize(
    ("seconds", "later", "alone", "whole"),
    [
        (24, 0, False, 30),
        (26, 6, True, 1),
        (84, 29, True, 1),
        (134, 30, True, 4),
        (136, 30, False, 5),
        (290, 30, False, 20),
        (310, 0, False, 30),
    ],
)
def test_the_later_stages_come_first_and_the_whole_network_if_there_is_time(monkeypatch, seconds, later, alone, whole):
    found = planned(monkeypatch, seconds)
    if not later:
        assert found == RECIPE
        return
    assert (found.kept.views, found.kept.stages, found.kept.epochs, found.kept.alone) == (4, 3, later, alone)
    assert found.train.epochs == whole


def test_views_are_as_many_as_the_disk_may_hold(monkeypatch):
    # 2 bytes of 40 channels at 12 x 12 places: 11,520 for each view.
    assert planned(monkeypatch, 10_000, num_train=60_000).kept.views == 2
    assert planned(monkeypatch, 20_000, num_train=100_000).kept.views == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2 * 3 * 11_520_000))
    assert planned(monkeypatch, 200).kept.views == 3


@pytest.mark.parametrize("settings", [{"loss.teacher": "bundle"}, {"train.micro_batch": 8}])
def test_what_needs_images_keeps_no_maps(monkeypatch, settings):
    recipe = with_values(RECIPE, settings)
    assert planned(monkeypatch, 200, recipe=recipe) == recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "none"}, "kept.views must be 0 here, got 2: without pretrained weights"),
        ({"strategy": "scratch"}, "kept.views must be 0 here, got 2: without pretrained weights"),
        ({"strategy": "head"}, "no effect with fit.strategy=head"),
        (
            {"strategy": "finetune", "epochs": 1, "settings": {"kept.stages": 7}},
            "kept.stages must leave a stage to train",
        ),
    ],
)
def test_maps_that_cannot_be_kept_are_refused(options, message, stripes, small_bundle, tmp_path):
    weights = {"weights": small_bundle} if options.get("strategy") not in (None, "scratch") else {}
    settings = {"kept.views": 2} | options.pop("settings", {})
    with pytest.raises(InputError, match=message):
        fit(stripes, settings=settings, out=tmp_path / "out", procedure=QUICK, **weights, **options)
    assert not (tmp_path / "out" / "config.json").exists()
