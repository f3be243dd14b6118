"""The command `effnet`, also as `python -m effnet`: what must stand before the first import that takes time."""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line and exit with its code."""
    # While modules load nothing is begun, and a KeyboardInterrupt would be a traceback out of the middle of one.
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, _end)
    from effnet.cli.main import main as run

    try:
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        _end(signal.SIGINT, None)
    finally:
        # A Ctrl-C that came while a text was executed, as in a dataclass, has Python end by the signal, not the code.
        exec("")
        if heeded:  # what Python does when it ends would be a traceback as well
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    try:
        os.write(2, b"effnet: interrupted\n")
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    main()
