"""Formats: no bundle is deployed as a file that could run code when read."""

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch

from effnet.errors import InputError
from effnet.runtimes.registry import FORMATS, format_of, open_engine


class Program:
    """What unpickling would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_an_archive_of_torch_export_in_a_bundle_is_never_opened(bundle_copy, run_cli, tmp_path):
    """torch and zipfile may see two archives in one such file, and what torch sees is unpickled."""
    pickled = io.BytesIO()
    torch.save(Program(tmp_path / "ran"), pickled)
    with zipfile.ZipFile(bundle_copy / "model.pt2", "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/data/sample_inputs/model.pt", pickled.getvalue())
    config = json.loads((bundle_copy / "config.json").read_text(encoding="utf-8"))
    (bundle_copy / "config.json").write_text(json.dumps(config | {"deployed": "pt2"}), encoding="utf-8")
    ran = run_cli("predict", bundle_copy, "image.png")
    assert ran.code == 2
    assert "a format must be one of onnx, " in ran.err
    assert not (tmp_path / "ran").exists()
    assert "torch" not in {found.runtime for found in FORMATS.values()}
    for call in (format_of, open_engine):
        with pytest.raises(InputError, match="the name of a model's file must end with one of"):
            call(bundle_copy / "model.pt2")
