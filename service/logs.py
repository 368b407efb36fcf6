"""Logs of the service: one JSON object per line on stderr, with the ids of the request and the job in progress."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TextIO

_NO_FIELDS: Mapping[str, Any] = MappingProxyType({})
_fields: ContextVar[Mapping[str, Any]] = ContextVar("log_fields", default=_NO_FIELDS)
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """One line of JSON: time, level, logger, message, the fields in force, `extra`, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {**_fields.get()}
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(*, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log of this process to one stream as JSON. Calling it again replaces what was set before.

    Args:
        level: Of the root logger.
        stream: stderr by default; stdout belongs to the answers of the command line.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # They log a line per migration, and per node of every exported graph.
    for library in ("alembic", "dbos", "onnxscript", "onnx_ir"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))


@contextmanager
def log_fields(**fields: Any) -> Iterator[None]:
    """Add fields, such as `job_id`, to every line this thread or task logs inside the block."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)
