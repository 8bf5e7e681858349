import errno

import pytest

from kamcl_jax.runs import disk_errors

TENSORSTORE = "DATA_LOSS: Error reading {}: {} [os_error_code='{}']"


@pytest.mark.parametrize(
    ("error", "reason", "of_machine"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "No space left on device", False),
        (ValueError(TENSORSTORE.format("x", "it is full", 28)), "No space left on device", False),
        (ValueError(TENSORSTORE.format("x", "no", 13)), "Permission denied", True),
        (FileNotFoundError(errno.ENOENT, "gone"), "No such file or directory", False),
        (
            ValueError("RESOURCE_EXHAUSTED: out of memory\nmore"),
            "RESOURCE_EXHAUSTED: out of memory",
            True,
        ),
        (MemoryError(), "MemoryError", True),
        (KeyError(), "KeyError", False),
        (ValueError("x" * 1000), "x" * 300, False),
    ],
)
def test_the_reason_is_one_short_line(error, reason, of_machine):
    assert disk_errors.reason(error) == reason
    assert disk_errors.is_of_machine(error) == of_machine
