"""One JSON object per line, with the ids in force."""

from __future__ import annotations

import io
import json
import logging
from threading import Thread

import pytest

from service.logs import configure_logging, log_fields


@pytest.fixture
def lines():
    """Log to memory, and put the loggers back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging(stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], root.level = before


def test_lines_carry_time_level_message_and_extra(lines):
    logging.getLogger("service.x").warning("hello %s", "Jörg\nline", extra={"kind": "k", "path": io})
    (line,) = lines()
    assert (line["level"], line["logger"], line["message"], line["kind"]) == (
        "warning",
        "service.x",
        "hello Jörg\nline",
        "k",
    )
    assert line["time"].endswith("+00:00")


def test_fields_hold_inside_the_block_and_nest(lines):
    log = logging.getLogger("service.x")
    with log_fields(job_id="j"):
        with log_fields(attempt=2):
            log.info("inner")
        log.info("outer")
    log.info("after")
    inner, outer, after = lines()
    assert (inner["job_id"], inner["attempt"]) == ("j", 2)
    assert (outer["job_id"], "attempt" in outer, "job_id" in after) == ("j", False, False)


def test_fields_of_one_thread_are_not_those_of_another(lines):
    with log_fields(job_id="j"):
        thread = Thread(target=lambda: logging.getLogger("service.x").info("there"))
        thread.start()
        thread.join()
    assert "job_id" not in lines()[0]


def test_a_traceback_stays_on_the_line(lines):
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("service.x").exception("it broke")
    (line,) = lines()
    assert "ValueError: boom" in line["traceback"]


def test_libraries_are_quiet(lines):
    logging.getLogger("dbos").info("a line per migration")
    logging.getLogger("alembic.runtime").info("another")
    assert lines() == []
