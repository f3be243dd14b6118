"""shard on the command line, and the verbs that read its shards."""

import json

import pytest
from file_server import serving
from messages import refused

import effnet


@pytest.fixture(scope="module")
def digit_shards(tmp_path_factory):
    """The digits as shards of 0.3 MB."""
    from effnet.data.datasets import read_dataset
    from effnet.data.shards.write import write_shards

    out = tmp_path_factory.mktemp("digits") / "digit shards"
    write_shards(read_dataset("digits"), out, shard_mb=0.3)
    return out


def test_shard_says_what_it_wrote(run_cli, tiny_images, tmp_path):
    ran = run_cli("data", "shard", tiny_images, tmp_path / "out", "--per-shard", 10, "--seed", 3)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "The images were split 70% train, 15% val, 15% test, stratified with seed 3.",
        "The input has 1 channel: all of the 42 sampled images are grey.",
        "train: 42 images in 5 shards, 0.1 MB",
        "val: 9 images in 1 shards, 0.0 MB",
        "test: 9 images in 1 shards, 0.0 MB",
        f"Shards: {tmp_path / 'out'}",
    ]
    assert len(list((tmp_path / "out").iterdir())) == 8


def test_shard_refuses_what_it_cannot_do_and_writes_nothing(run_cli, tiny_images, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    assert "OUT must be new or empty" in refused(run_cli("data", "shard", tiny_images, tmp_path / "full"))
    both = run_cli("data", "shard", tiny_images, tmp_path / "out", "--per-shard", 10, "--shard-mb", 1)
    assert refused(both) == "give --shard-mb or --per-shard, not both"
    assert "there is no " in refused(run_cli("data", "shard", tmp_path / "nowhere", tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"


def test_shards_are_inspected_as_their_folder_is(run_cli, tiny_images, tmp_path):
    run_cli("data", "shard", tiny_images, tmp_path / "out")
    found = [
        json.loads(run_cli("data", "inspect", data, "--format", "json").out) for data in (tiny_images, tmp_path / "out")
    ]
    for key in ("num_images", "classes", "widths", "modes", "unreadable", "across_labels"):
        assert found[0][key] == found[1][key], key


def test_shards_are_never_written_among_the_images(run_cli, tiny_images):
    message = refused(run_cli("data", "shard", tiny_images, tiny_images / "shards"))
    assert message.startswith(f"OUT must be outside of DATA ({tiny_images}), but ")
    assert not (tiny_images / "shards").exists()


def test_a_bundle_scores_on_shards_what_it_scores_on_the_images(run_cli, small_bundle, digit_shards):
    on_shards = json.loads(run_cli("evaluate", small_bundle, digit_shards, "--split", "test", "--format", "json").out)
    on_arrays = json.loads(run_cli("evaluate", small_bundle, "digits", "--format", "json").out)
    assert on_shards["images"] == on_arrays["images"] == 269
    assert on_shards["accuracy"] == on_arrays["accuracy"]
    assert on_shards["sureness"]["nll"] == pytest.approx(on_arrays["sureness"]["nll"], rel=1e-6)
    worst = on_shards["mistakes"][0]["source"]
    assert worst.startswith("test-00000")
    assert worst.endswith(".png")


@pytest.mark.usefixtures("one_thread")
def test_a_network_is_trained_on_shards_of_a_server(run_cli, tiny_images, tmp_path, monkeypatch):
    shards = tmp_path / "shards"
    assert run_cli("data", "shard", tiny_images, shards, "--per-shard", 5).code == 0
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    # Less than the size of the 13 shards, so that some are evicted.
    largest = max(path.stat().st_size for path in shards.glob("*.tar"))
    monkeypatch.setenv("EFFNET_SHARD_CACHE_GB", str(6.5 * largest / 1e9))
    spec = effnet.scale(effnet.get_spec("b0"), phi=-20, resolution=8)
    (tmp_path / "spec.json").write_text(json.dumps(effnet.spec_to_dict(spec)))
    words = ["--model", tmp_path / "spec.json", "--resolution", 8, "--epochs", 1, "--out", tmp_path / "out"]
    with serving() as server:
        server.files = {path.name: path.read_bytes() for path in shards.iterdir()}
        ran = run_cli("train", server.url, *words)
        assert (ran.code, ran.err) == (0, "")
        assert "each epoch mixes 4 shards at a time" in ran.out
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["test"]["images"] == 9
        local = json.loads(run_cli("evaluate", tmp_path / "out", shards, "--format", "json").out)
        assert local["accuracy"] == report["test_accuracy"]
        again = run_cli("train", server.url, *words, "--resume")
        assert "Resuming the fit" in again.out
        monkeypatch.setenv("EFFNET_SHARD_CACHE_GB", "1")
        assert "--resume needs the images" in refused(run_cli("train", server.url, *words, "--resume"))
