"""Manifests against Kubernetes' own schemas, and what they say against the settings."""

import re

import pytest

from effnet.serving.manifests.plain_yaml import to_yaml
from effnet.serving.manifests.write import write_manifests
from effnet.serving.settings import Settings
from effnet.serving.versions.version import read_sources

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
SETTINGS = Settings(workers=3, deadline_ms=250, drain_seconds=4, max_pixels=9_000_000, keys=(b"k" * 20,))


@pytest.fixture(scope="module")
def written(bundles, tmp_path_factory):
    """The manifests of each kind, as parsed documents, and their folder."""
    out = tmp_path_factory.mktemp("manifests") / "out"
    sources = read_sources([f"tiny:1={bundles / 'tiny'}", f"det={bundles / 'det'}"])
    found = {}
    for kind in ("kubernetes", "kserve", "compose"):
        files = write_manifests(kind, sources, SETTINGS, out=out)
        found[kind] = list(yaml.safe_load_all(files[0].read_text()))
    return found, out


def test_kubernetes_accepts_every_document(written):
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed").validate
    found, _ = written
    for document in found["kubernetes"]:
        validate(document, "1.34", strict=True)
    kinds = [document["kind"] for document in found["kubernetes"]]
    assert kinds == ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"]
    runtime, first, *_ = found["kserve"]
    predictor = dict(first["spec"]["predictor"])
    assert predictor.pop("model")["runtime"] == runtime["metadata"]["name"]
    for name in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"):
        del predictor[name]
    spec = {key: runtime["spec"][key] for key in ("containers", "volumes")} | predictor
    # KServe's own kinds have no schema here; the pod that it makes of them has.
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}, "1.34", strict=True)


def test_they_say_what_the_settings_say(written):
    found, out = written
    deployment = found["kubernetes"][0]["spec"]["template"]["spec"]
    container = deployment["containers"][0]
    assert container["args"] == [
        "serve", "tiny:1=/models/tiny-1", "det=/models/det", "--host", "0.0.0.0", "--port", "8000",
        "--keys", "/etc/effnet/keys", "--deadline-ms", "250", "--drain-seconds", "4",
        "--set", "serve.max_pixels=9000000",
    ]  # fmt: skip
    assert container["resources"]["limits"]["cpu"] == "3"
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert deployment["terminationGracePeriodSeconds"] > 4 + SETTINGS.finish_seconds
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert deployment["securityContext"]["runAsNonRoot"] is True
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    service = found["compose"][0]["services"]["effnet-serve"]
    assert service["command"] == container["args"]
    assert (service["cpus"], service["read_only"]) == (3, True)
    text = "".join(path.read_text() for path in out.iterdir() if path.is_file())
    assert "kkkk" not in text, "a key is a secret"


def test_the_image_has_the_bundles_and_runs_the_command(written, bundles):
    found, out = written
    dockerfile = (out / "Dockerfile").read_text()
    for place in re.findall(r"^COPY (models/\S+) (?:\S+)$", dockerfile, re.MULTILINE):
        assert (out / place / "config.json").is_file()
    assert "USER 10001:10001" in dockerfile
    assert (out / "models" / "tiny-1" / "model.onnx").read_bytes() == (bundles / "tiny" / "model.onnx").read_bytes()
    container = found["kubernetes"][0]["spec"]["template"]["spec"]["containers"][0]
    assert yaml.safe_load(dockerfile.rpartition("CMD ")[2]) == container["args"]


def test_the_command_writes_them_and_refuses_another_folder(run_cli, bundles, tmp_path):
    done = run_cli("serve", bundles / "tiny", "--manifests", "compose", "--out", tmp_path / "new")
    assert done.code == 0, done.err
    assert (tmp_path / "new" / "compose.yaml").is_file()
    (tmp_path / "note").write_text("mine")
    refused = run_cli("serve", bundles / "tiny", "--manifests", "compose", "--out", tmp_path)
    assert refused.code == 2
    assert "must be a new folder" in refused.err


@pytest.mark.parametrize(
    "text", ["yes", "0.0.0.0", "1e3", "a: b", "- x", "", "é", "null", "{{.Name}}=/x", "08", "a#b", "/p/q"]
)
def test_texts_stay_texts(text):
    data = {"a": [text, {"b": text, "c": {}, "d": []}], "e": {text or "x": 1, "f": True}}
    assert yaml.safe_load(to_yaml(data)) == data
