"""Runtimes that report to their makers are told not to, unless their user has asked for it."""

import os
import sys

_ORT = "ORT_DISABLE_TELEMETRY"
_OPENVINO = "openvino_telemetry"
# Where OpenVINO and NNCF keep what their user said to them: "1" is yes.
_CONSENT = os.path.join("~", "intel", _OPENVINO)


def silence() -> None:
    """Turn the telemetry of ONNX Runtime, OpenVINO and NNCF off, in this process and its children.

    It must be called before they are imported: OpenVINO sends as it is. A user who set ORT_DISABLE_TELEMETRY=0, or
    agreed with OpenVINO's `opt_in_out --opt_in`, keeps what was chosen. Without the package openvino_telemetry, which
    is made to look absent, OpenVINO and NNCF take stubs of their own that send nothing.
    """
    os.environ.setdefault(_ORT, "1")
    if _OPENVINO not in sys.modules and not _agreed():
        sys.modules[_OPENVINO] = None  # type: ignore[assignment]


def _agreed() -> bool:
    try:
        with open(os.path.expanduser(_CONSENT), encoding="utf-8", errors="replace") as file:
            return file.read(2).strip() == "1"
    except OSError:
        return False
