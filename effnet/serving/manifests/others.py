"""Manifests of KServe and Docker Compose, and the Dockerfile of the image that all of them run."""

import json
import sys
from typing import Any

from effnet.serving.manifests.facts import KEYS, NAME, PORT, USER, Facts
from effnet.serving.manifests.kubernetes import container, pod

_KSERVE_MODELS = "/mnt/models"


def kserve_documents(facts: Facts) -> list[dict[str, Any]]:
    """Return a ServingRuntime, and an InferenceService in the Standard mode for each model, in its own storage."""
    # KServe puts the name of the service into {{.Name}}, and its storage into /mnt/models.
    command = ["serve", "{{.Name}}=" + _KSERVE_MODELS, *facts.arguments]
    found = container(facts, name="kserve-container", command=command)
    runtime = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": NAME},
        "spec": {
            "supportedModelFormats": [{"name": "effnet", "version": "1", "autoSelect": True}],
            "protocolVersions": ["v2"],
            **{key: value for key, value in pod(facts, found).items() if key in ("containers", "volumes")},
        },
    }
    return [runtime, *(_service(facts, source.name, place) for source, place in facts.models)]


def _service(facts: Facts, name: str, place: str) -> dict[str, Any]:
    rest = {key: value for key, value in pod(facts, {}).items() if key not in ("containers", "volumes")}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name.lower().replace("_", "-").replace(".", "-"),
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {
            "predictor": {
                "minReplicas": 2,
                "maxReplicas": 10,
                "scaleMetric": "cpu",
                "scaleTarget": 70,
                **rest,
                "model": {
                    "modelFormat": {"name": "effnet"},
                    "protocolVersion": "v2",
                    "runtime": NAME,
                    "storageUri": f"pvc://models{place.removeprefix('/models')}",
                },
            }
        },
    }


def compose(facts: Facts) -> dict[str, Any]:
    """Return one service of Docker Compose."""
    probe = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{PORT}/v2/health/ready', timeout=2)"
    service: dict[str, Any] = {
        "build": ".",
        "image": facts.image,
        "command": facts.command,
        "ports": [f"{PORT}:{PORT}"],
        "user": f"{USER}:{USER}",
        "read_only": True,
        "tmpfs": ["/tmp:size=64m"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "cpus": float(facts.cores),
        "mem_limit": f"{facts.memory_mb}m",
        "stop_grace_period": f"{facts.grace_seconds}s",
        "restart": "unless-stopped",
        "healthcheck": {
            "test": ["CMD", "python", "-c", probe], "interval": "5s", "timeout": "3s", "start_period": "30s",
        },
    }  # fmt: skip
    found: dict[str, Any] = {"services": {NAME: service}}
    if facts.keys:
        service["secrets"] = [{"source": "effnet-keys", "target": KEYS, "uid": str(USER), "mode": 256}]
        found["secrets"] = {"effnet-keys": {"file": "./keys"}}
    return found


def dockerfile(facts: Facts) -> str:
    """Return the Dockerfile of the image: the wheel, in an environment of its own, and the bundles."""
    copies = "\n".join(f"COPY {place.lstrip('/')} {place}" for _, place in facts.models)
    return f"""\
# docker build -t {facts.image} .
FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim AS build
COPY wheels /wheels
RUN python -m venv /opt/effnet \\
    && /opt/effnet/bin/pip install --no-cache-dir --find-links /wheels "$(echo /wheels/effnet-*.whl)[serve]"

FROM python:{sys.version_info.major}.{sys.version_info.minor}-slim
COPY --from=build /opt/effnet /opt/effnet
{copies}
ENV PATH=/opt/effnet/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER {USER}:{USER}
EXPOSE {PORT}
STOPSIGNAL SIGTERM
ENTRYPOINT ["effnet"]
CMD {json.dumps(facts.command)}
"""
