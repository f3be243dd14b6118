"""Two gloo processes align a network as one does: each has the other's pairs as negatives."""

import json

import captioned
import numpy as np
import pytest
import safetensors.numpy
import words_runs
from test_ranks import launch

from effnet.jobs.align.job import RECORD

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_two_processes_make_the_bundle_of_one(tmp_path, loss):
    captioned.write_captioned(tmp_path / "data")
    captioned.write_glove(tmp_path / "glove.txt")
    captioned.write_backbone(tmp_path / "backbone")
    code, out, err = launch(words_runs.__file__, tmp_path, tmp_path / "two", loss)
    assert code == 0, err
    words_runs.align(tmp_path, tmp_path / "one", loss)
    one, two = (json.loads((tmp_path / name / RECORD).read_text()) for name in ("one", "two"))
    assert out.count(f"R@10 {two['test']['recall_at_10']:.6f}") == 2  # both processes return the result
    assert one["best_epoch"] == two["best_epoch"] > 0
    assert one["val_mrr"] == pytest.approx(two["val_mrr"], abs=0.02)
    states = [safetensors.numpy.load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    begin = safetensors.numpy.load_file(tmp_path / "backbone" / "model.safetensors")
    for name in begin:
        moved = np.abs(states[0][name] - begin[name]).max()
        assert np.abs(states[0][name] - states[1][name]).max() <= 0.05 * moved + 1e-5, name
