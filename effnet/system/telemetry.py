"""Turn off the telemetry of the runtimes, unless the user has opted in."""

import os
import sys

_ORT = "ORT_DISABLE_TELEMETRY"
_OPENVINO = "openvino_telemetry"
# The file in which OpenVINO and NNCF store the user's consent: "1" is yes.
_CONSENT = os.path.join("~", "intel", _OPENVINO)


def silence() -> None:
    """Turn the telemetry of ONNX Runtime, OpenVINO and NNCF off, in this process and its children.

    It must be called before they are imported: OpenVINO sends on import. The choice of a user who set
    ORT_DISABLE_TELEMETRY=0, or opted in with OpenVINO's `opt_in_out --opt_in`, is respected. The package
    openvino_telemetry is made to look absent; OpenVINO and NNCF then use their own stubs, which send nothing.
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
