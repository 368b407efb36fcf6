"""`tailor serve`: one port, one folder, one worker; nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from service.errors import ConflictError, InvalidRequestError, StorageError
from service.jobs.folder_lock import folder_lock
from service.settings import Settings
from service.supervisor import serve

SERVE = """
import sys
from service.errors import ServiceError
from service.settings import Settings
from service.supervisor import serve

try:
    serve(Settings(data_dir=sys.argv[1]), port=int(sys.argv[2]), with_worker=sys.argv[3] == "worker")
except ServiceError as error:
    sys.exit(f"{error.code}: {error}")
"""


class Server:
    def __init__(self, folder: Path, *, port: int = 0, worker: bool = True, log: Path) -> None:
        self.log_path = log
        with log.open("w") as stream:
            command = [sys.executable, "-c", SERVE, str(folder), str(port), "worker" if worker else "alone"]
            self.process = subprocess.Popen(command, stderr=stream)

    def log(self) -> str:
        return self.log_path.read_text()

    def address(self) -> str:
        for line in self.log().splitlines():
            if line.startswith("{") and (record := json.loads(line))["message"] == "listening":
                return record["address"]
        assert self.process.poll() is None, self.log()
        return ""

    def worker(self) -> int:
        """The newest worker that is ready."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        tasks = children.parents[1].glob("*/children")
        pids = [pid for task in tasks for pid in task.read_text().split()]
        ready = self.log().count('"worker ready"')
        return int(pids[-1]) if pids and ready else 0


@pytest.fixture
def start(tmp_path):
    servers = []

    def start(folder="data", **options) -> Server:
        servers.append(Server(tmp_path / folder, log=tmp_path / f"server{len(servers)}.log", **options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


def test_a_server_keeps_its_worker_running_and_takes_it_along(start, service):
    server = start()
    address = service.until(server.address, what="the server")
    with urllib.request.urlopen(f"{address}/healthz", timeout=20) as response:
        assert response.status == 200
    first = service.until(server.worker, what="the worker")

    os.kill(first, signal.SIGKILL)
    service.until(lambda: server.log().count('"worker ready"') == 2, what="the second worker")
    worker = service.until(server.worker)
    assert worker != first

    server.process.terminate()
    assert server.process.wait(40) == 0
    assert not service.alive(worker)


def test_a_killed_server_takes_its_worker_along(start, service):
    server = start()
    worker = service.until(server.worker, what="the worker")
    server.process.kill()
    server.process.wait()
    service.until(lambda: not service.alive(worker), what="the end of the worker")


@pytest.mark.parametrize("role", ["server", "worker"])
def test_a_second_instance_on_a_folder_is_refused(tmp_path, role, monkeypatch):
    monkeypatch.setattr("service.supervisor._GRACE_S", 0.1)
    with (
        folder_lock(tmp_path, role),
        pytest.raises(ConflictError, match=f"Another {role} is running on the data folder"),
    ):
        serve(Settings(data_dir=tmp_path), port=0)


def test_a_busy_port_and_a_foreign_address_are_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConflictError, match=f"Port {port} on 127.0.0.1 is in use") as caught:
            serve(Settings(data_dir=tmp_path), port=port)
    assert caught.value.code == "port_in_use"
    with pytest.raises(InvalidRequestError, match=r"Cannot listen on 203\.0\.113\.7"):
        serve(Settings(data_dir=tmp_path), host="203.0.113.7", port=0)


def test_a_disk_that_is_full_after_the_migration_is_named(tmp_path, monkeypatch):
    def fail(_):
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr("service.supervisor.register_shipped", fail)
    with pytest.raises(StorageError, match=r"cannot be written: database or disk is full\. Check .* the free space"):
        serve(Settings(data_dir=tmp_path), port=0)
