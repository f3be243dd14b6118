"""Checks common to all refusals."""


def refused(ran):
    """Return the message of a refused command: exit code 2, one sentence on stderr, no traceback."""
    assert ran.code == 2, ran
    assert ran.err.startswith("effnet: ")
    assert ran.err.count("\n") == 1
    return ran.err.removeprefix("effnet: ").rstrip("\n")
