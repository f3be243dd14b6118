"""Manifests of Kubernetes: a Deployment, its Service, HorizontalPodAutoscaler and PodDisruptionBudget."""

from typing import Any

from effnet.serving.manifests.facts import KEYS, NAME, PORT, USER, Facts

_LABELS = {"app.kubernetes.io/name": NAME}
_REPLICAS, _MOST_REPLICAS, _CPU_PERCENT = 2, 10, 70


def documents(facts: Facts) -> list[dict[str, Any]]:
    """Return the documents in the order in which they are applied."""
    return [_deployment(facts), _service(), _autoscaler(), _budget()]


def container(facts: Facts, *, name: str = NAME, command: list[str] | None = None) -> dict[str, Any]:
    """Return the container of a replica: probes, limits, no root, nothing that it can write but /tmp."""
    probe = {"periodSeconds": 2, "timeoutSeconds": 2}
    resources = {"cpu": str(facts.cores), "memory": f"{facts.memory_mb}M"}
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    if facts.keys:
        mounts.append({"name": "keys", "mountPath": KEYS.rpartition("/")[0], "readOnly": True})  # type: ignore[dict-item]
    return {
        "name": name,
        "image": facts.image,
        "args": command or facts.command,
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        # The engines are as many as the cores of the limit; with a lower request they would be throttled in a load.
        "resources": {"requests": resources, "limits": resources},
        # Live is that it answers at all, also while it loads or drains: only a process that hangs is restarted.
        "livenessProbe": {**_get("/v2/health/live"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "readinessProbe": {**_get("/v2/health/ready"), **probe, "failureThreshold": 1},
        "startupProbe": {**_get("/v2/health/ready"), **probe, "failureThreshold": 60},
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }  # fmt: skip


def pod(facts: Facts, found: dict[str, Any]) -> dict[str, Any]:
    """Return the pod around a container.

    There is no preStop hook: SIGTERM itself turns the readiness to 503, and the server answers for its drain time.
    """
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64M"}}]
    if facts.keys:
        volumes.append({"name": "keys", "secret": {"secretName": "effnet-keys"}})
    return {
        "terminationGracePeriodSeconds": facts.grace_seconds,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [found],
        "volumes": volumes,
    }  # fmt: skip


def _get(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}}


def _deployment(facts: Facts) -> dict[str, Any]:
    spread = {
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": _LABELS},
    }  # fmt: skip
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/path": "/metrics", "prometheus.io/port": str(PORT)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "labels": _LABELS},
        "spec": {
            # The autoscaler sets the number of replicas; none is ended before its successor is ready.
            "selector": {"matchLabels": _LABELS},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": _LABELS, "annotations": annotations},
                "spec": {**pod(facts, container(facts)), "topologySpreadConstraints": [spread]},
            },
        },
    }


def _service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "labels": _LABELS},
        "spec": {
            "type": "ClusterIP",
            "selector": _LABELS,
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _autoscaler() -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": _CPU_PERCENT}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": NAME, "labels": _LABELS},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
            "minReplicas": _REPLICAS,
            "maxReplicas": _MOST_REPLICAS,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        },
    }


def _budget() -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": NAME, "labels": _LABELS},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _LABELS}},
    }
