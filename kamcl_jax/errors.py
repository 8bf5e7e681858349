"""Every error that tells you what to mend; all of them derive from `KamclError`.

The command line prints the sentence and ends. Other exceptions are mistakes of the program.
"""

import signal

from input_pipeline.errors import DataError, KamclError

__all__ = [
    "AcceleratorError",
    "CheckpointError",
    "ConfigError",
    "DamagedCheckpointError",
    "DataError",
    "DivergedError",
    "ExportError",
    "GoldenFileError",
    "KamclError",
    "NotComparableError",
    "PretrainedError",
    "Stopped",
    "TorchOriginalError",
]


class AcceleratorError(KamclError, RuntimeError):
    """No program can be compiled for an accelerator."""


class ConfigError(KamclError, ValueError):
    """The config cannot be trained, or it does not fit the run."""


class CheckpointError(KamclError, RuntimeError):
    """A checkpoint cannot be written, or none can be read."""


class DamagedCheckpointError(CheckpointError):
    """What is stored of a checkpoint is not what was written."""


class DivergedError(KamclError, RuntimeError):
    """The loss or a gradient is no longer a finite number."""


class ExportError(KamclError, ValueError):
    """An exported file cannot be written or read."""


class GoldenFileError(KamclError, ValueError):
    """A golden file cannot be used."""


class NotComparableError(KamclError, ValueError):
    """The queries of two runs cannot be compared."""


class PretrainedError(KamclError, ValueError):
    """A file of weights cannot be used."""


class TorchOriginalError(KamclError, ValueError):
    """The PyTorch original cannot be run."""


class Stopped(Exception):  # noqa: N818
    """A signal has ended a training early, after a checkpoint; the same command goes on from there.

    Attributes:
      signal: The signal that was received.
      step: The last step that was taken.
    """

    def __init__(self, received: signal.Signals, step: int):
        super().__init__(
            f"stopped by {received.name} after step {step}; the same command goes on from there"
        )
        self.signal = received
        self.step = step

    @property
    def exit_status(self) -> int:
        """The status that a shell expects of a program that a signal has ended."""
        return 128 + self.signal
