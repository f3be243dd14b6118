"""effnet prune on the command line: refusals before anything is read or written."""

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--macs", "2"], "share of multiply-accumulates"),
        (["--set", "prune.method=magic"], "taylor, l1, l2, bn"),
        (["--epochs", "1", "--minutes", "1"], "not both"),
        ([], "a bundle is a folder with a config.json"),
    ],
)
def test_what_cannot_be_pruned_ends_with_code_2_and_leaves_nothing(words, said, run_cli, tmp_path):
    ran = run_cli("prune", str(tmp_path), "digits", "--out", str(tmp_path / "out"), *words)
    assert ran.code == 2
    assert said in ran.err
    assert not (tmp_path / "out").exists()
