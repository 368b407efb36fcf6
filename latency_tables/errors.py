"""Errors of the latency_tables package. Each message says what was given, what is allowed and what to do.

LatencyError
├─ MissingEntryError (KeyError)       a table without the rows a space or network needs
├─ TableFormatError (ValueError)      a table, device profile or published file that is malformed
├─ DeviceMismatchError (ValueError)   a table of another device, runtime, thread count or space than the one in use
├─ InvalidSettingError (ValueError)   a plan, confidence or device setting out of range
├─ MeasurementError (RuntimeError)    a model that cannot be built, loaded or timed here
└─ UnstableMeasurementError (ArithmeticError)   the machine changed its speed while it was measured
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supernet.spaces.blocks import BlockSpec


class LatencyError(Exception):
    """Root of every error this package raises on purpose."""


class MissingEntryError(LatencyError, KeyError):
    """A latency table lacks rows that are needed.

    Attributes:
        device_id: Device of the table.
        missing: The blocks without a row, sorted.
    """

    def __init__(self, message: str, *, device_id: str, missing: tuple[BlockSpec, ...]) -> None:
        super().__init__(message)
        self.device_id = device_id
        self.missing = missing

    def __str__(self) -> str:
        # KeyError would show the message in quotes.
        return str(self.args[0])


class TableFormatError(LatencyError, ValueError):
    """A table, device profile or published file that cannot be read; the message names the row where there is one.

    Attributes:
        row: Number of the offending row, counted from 1; 0 where the fault is not in a row.
    """

    def __init__(self, message: str, *, row: int = 0) -> None:
        super().__init__(message)
        self.row = row


class DeviceMismatchError(LatencyError, ValueError):
    """A table is used with another device, runtime, thread count or space than it was made for."""


class InvalidSettingError(LatencyError, ValueError):
    """A setting of a measurement or an estimate that is out of range."""


class MeasurementError(LatencyError, RuntimeError):
    """A model cannot be built, loaded or timed on this machine."""


class UnstableMeasurementError(LatencyError, ArithmeticError):
    """The machine changed its speed too much while it was measured.

    Attributes:
        drift: Slowest over fastest median of the reference network.
        steady_share: Share of the visits during which it ran at its usual speed.
    """

    def __init__(self, message: str, *, drift: float, steady_share: float) -> None:
        super().__init__(message)
        self.drift = drift
        self.steady_share = steady_share
