"""What went wrong with a disk: the libraries below say it in many ways."""

import errno
import os
import re

_PASSING = (
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)


def is_of_machine(error: Exception) -> bool:
    """Whether an error speaks of this machine and not of what is stored: another try may do."""
    memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
    return memory or _system_code(error) in _PASSING


def _system_code(error: BaseException) -> int | None:
    """Returns the operating system's number of an error; TensorStore has it in its message."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found[1]) if found else None


def reason(error: BaseException) -> str:
    """Returns what went wrong in a line: TensorStore's messages hide it behind long paths."""
    code = _system_code(error)
    if code is not None:
        return os.strerror(code)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
