"""The option of fit and train that chooses the columns of a manifest."""

import pytest

from effnet.jobs.fit.config import FitConfig, TrainConfig
from effnet.jobs.fit.job import command_line, job_of
from effnet.system.options import repeated


@pytest.mark.parametrize("config", [FitConfig, TrainConfig])
@pytest.mark.parametrize("outputs", ["gender, year", ["gender", "year"], ("gender", "year")])
def test_outputs_are_a_text_or_words_that_a_resumed_job_repeats(config, outputs):
    job = job_of(config("m.csv", outputs=outputs))
    assert job.config.outputs == "gender,year"
    assert "--outputs gender,year" in command_line(job)
    assert repeated(job.config)["outputs"] == "gender,year"


def test_an_unknown_column_ends_a_fit_before_anything_is_made(make_folder, tmp_path, run_cli):
    folder = make_folder({"a": 4})
    (folder / "m.csv").write_text("path,gender\na/000.png,x\n")
    out = tmp_path / "out"
    ran = run_cli("fit", folder / "m.csv", "--outputs", "gendre", "--out", out, "--weights", "none")
    assert ran.code == 2
    assert "did you mean 'gender'" in ran.err
    assert not out.exists()
