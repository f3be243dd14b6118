"""A fake device whose times follow a formula exactly, and profiles of it."""

import numpy as np

from effnet.arch.cost import cost
from effnet.arch.layers import named_layers
from effnet.arch.spec import ArchSpec
from effnet.measurement.profile.features import latency_features
from effnet.measurement.profile.networks import profile_networks
from effnet.measurement.profile.profile import Clock, DeviceProfile, Measured

# Nanoseconds per unit of work; work that is not named is free. SiLU is not fused, as in ONNX Runtime.
RATES = {
    "network": 9000.0, "input": 2.0, "pointwise macs": 0.013, "pointwise calls": 1500.0, "depthwise k3 s1 macs": 0.04,
    "depthwise k3 s2 macs": 0.06, "depthwise k5 s1 macs": 0.07, "depthwise k5 s2 macs": 0.09, "depthwise calls": 2000.0,
    "stem macs": 0.03, "full macs": 0.011, "act silu elements": 0.5, "act hard_swish elements": 0.3,
    "linear weights": 0.1, "vector weights": 0.2, "mul elements": 0.4, "add elements": 0.2,
    "weights beyond 256000": 0.15,
}  # fmt: skip


def latency_ms(spec: ArchSpec) -> float:
    """Return the device's latency of `spec`."""
    work = latency_features(spec)
    return sum(rate * work.get(name, 0.0) for name, rate in RATES.items()) / 1e6


def memory_mb(spec: ArchSpec) -> float:
    """Return the device's memory of `spec`."""
    found = cost(spec)
    return 8.0 + 9e-6 * found.folded_params + 7e-6 * found.peak_activations + 0.01 * len(named_layers(spec))


def make_profile(
    *, noise: float = 0.0, networks: int = 60, mixtures: int = 60, precision: str = "fp32"
) -> DeviceProfile:
    """Return a profile of the device; `noise` adds a non-negative amount to each time, as background load does."""
    rng = np.random.default_rng(0)
    rows = tuple(
        Measured(
            spec=spec,
            precision=precision,
            latency_ms=latency_ms(spec) * (1 + noise * float(rng.exponential())),
            spread=0.01,
            memory_mb=memory_mb(spec),
        )
        for spec in profile_networks(networks=networks, mixtures=mixtures)
    )
    return DeviceProfile(
        runtime="onnxruntime",
        threads=1,
        machine={"cpu": "made up", "cores": 4, "memory_gb": 8.0, "system": "none"},
        versions={"onnxruntime": "1.32.0"},
        measured=rows,
        clock=Clock(start_mhz=2400.0, end_mhz=2400.0, reference_ms=(1.0,) * 8),
        errors={"fp32 latency": 0.03},
        seconds=200.0,
        created="2026-11-22T00:00:00+00:00",
    )
