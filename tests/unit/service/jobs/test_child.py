"""What the child answers when the work fails."""

from __future__ import annotations

import errno
import os

import pytest

from service.jobs import child


@pytest.fixture
def answer_to(monkeypatch, tmp_path):
    """The last answer to a request whose work raises this error."""

    def run(error: Exception):
        def fail(*_):
            raise error

        monkeypatch.setattr(child, "main", fail)  # any function of a module that is there
        request = {"job_id": "j", "target": "service.jobs.child:main", "payload": {}, "out_dir": str(tmp_path)}
        return child.run_request(request, lambda _: None)

    return run


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_said_and_what_to_do(answer_to, number: int) -> None:
    error = answer_to(OSError(number, os.strerror(number), "/secret/place/model.onnx"))["error"]
    assert error["code"] == "storage_unavailable"
    assert os.strerror(number) in error["message"]
    assert "Free some space" in error["message"]
    assert "secret" not in error["message"]


def test_another_fault_of_the_system_stays_in_the_log(answer_to) -> None:
    error = answer_to(PermissionError(errno.EACCES, "Permission denied", "/secret/place"))["error"]
    assert error["code"] == "internal_error"
    assert "secret" not in error["message"]
