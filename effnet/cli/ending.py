"""How a command ends: its exit code, and one line that says why."""

import errno
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeGuard

from effnet.cli.console import fail
from effnet.cli.launched import is_first, says
from effnet.errors import EffnetError, MissingExtraError, missing_extra
from effnet.system.memory import shortage_behind
from effnet.system.signals import exit_code
from effnet.system.streams import drop_unwritten

_AFTER_ANOTHER_SECONDS = 1.0
_LONGEST = 200


class Interrupted(Exception):
    """A signal ended a verb; the argument is the message, `exit_code` the code to exit with."""

    def __init__(self, error: KeyboardInterrupt, *, resumable: bool = False) -> None:
        self.exit_code = exit_code(error)
        word = "interrupted" if self.exit_code == exit_code(KeyboardInterrupt()) else "terminated"
        super().__init__(word + ("; continue with the same command and --resume" if resumable else ""))


def run_to_end(command: Callable[[], object]) -> int:
    """Run `command` and return the exit code; an error is reported in one line on stderr.

    A bug keeps its traceback.
    """
    try:
        code = _run(command)
        sys.stdout.flush()  # a failed flush is reported here, not by Python at exit
        return code
    except KeyboardInterrupt as error:
        return _say_interrupted(Interrupted(error))
    except Interrupted as error:
        return _say_interrupted(error)
    except Exception as error:
        return _say(error)
    finally:
        drop_unwritten()


def _run(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    return 0


def _say(error: Exception) -> int:
    """Report why the command failed and return its exit code; raise the error if it is a bug."""
    if interrupt := _interrupt_behind(error):
        return _say_interrupted(Interrupted(interrupt))
    reason = shortage_behind(error)
    # effnet's own errors with exit code 1 already say what to do.
    if reason is not None and (not isinstance(error, EffnetError) or error.exit_code != 1):
        return _say_shortage(reason)
    if isinstance(error, EffnetError):
        return _say_own(error)
    if isinstance(error, ImportError):
        return _say_import(error)
    if isinstance(error, OSError):
        return _say_system(error)
    raise error


def _interrupt_behind(error: Exception) -> KeyboardInterrupt | None:
    """Return the Ctrl-C that a package turned into its own error, as C modules do while they load."""
    found: BaseException | None = error
    while isinstance(found, ImportError | SystemError):
        found = found.__cause__ or found.__context__
    return found if isinstance(found, KeyboardInterrupt) else None


def _say_own(error: EffnetError) -> int:
    if isinstance(error, MissingExtraError) and _is_broken(error.__cause__):
        return _say_import(error.__cause__)
    if says(error):
        fail(str(error))
    else:  # launchers end all processes once one has ended: the one that prints the error must end first
        with suppress(KeyboardInterrupt):
            time.sleep(_AFTER_ANOTHER_SECONDS)
    return error.exit_code


def _is_broken(error: BaseException | None) -> TypeGuard[ImportError]:
    return isinstance(error, ImportError) and not isinstance(error, ModuleNotFoundError)


def _say_import(error: ImportError) -> int:
    """Report a package that is not installed or cannot be loaded."""
    missing = missing_extra(error) if isinstance(error, ModuleNotFoundError) else None
    if missing is not None:
        fail(str(missing))
        return missing.exit_code
    if isinstance(error, ModuleNotFoundError):
        raise error
    fail(f"an installed package cannot be loaded ({_line(error)}); install it again")
    return 1


def _say_interrupted(error: Interrupted) -> int:
    if is_first():
        fail(str(error))
    return error.exit_code


def _say_shortage(error: BaseException) -> int:
    fail(
        f"memory ran out ({_line(error)}): close other programs or raise this process's limit (ulimit -v, a container's"
        " memory), or use less memory with fewer threads, a smaller resolution or a smaller batch"
    )
    return 1


def _say_system(error: OSError) -> int:
    if isinstance(error, BrokenPipeError):  # the reader of the pipe (head, less) has exited: nothing to report
        return 1
    if error.errno == errno.ENOSPC:
        where = f" at {error.filename}" if error.filename else ", or standard output cannot be written"
        fail(
            f"the disk is full{where}: free some space, then run the command again, with --resume if it has that option"
        )
        return 1
    # With a path it is unusable input; without one it is the machine that fails.
    fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    return 2 if error.filename else 1


def _line(error: BaseException) -> str:
    """Return the last line of an error's message, shortened, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[-1][:_LONGEST] if lines else type(error).__name__
