"""`tailor serve`: the API in this process, the worker beside it, both gone when this one is.

The worker is a process of its own, since the API imports no torch, and is started again whenever it dies.
"""

from __future__ import annotations

import errno
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import uvicorn

from service.app import create_app
from service.db.engine import DatabaseError, build_engine, reason_of, session_factory, session_scope
from service.db.migrate import upgrade
from service.errors import ConflictError, InvalidRequestError, StorageError
from service.jobs.folder_lock import folder_lock
from service.logs import configure_logging
from service.usecases.shipped import register_shipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.settings import Settings

_GRACE_S = 5  # open event streams would otherwise keep the server from stopping
_WORKER_STOP_S = 15.0
_BACKOFF_S = (0.5, 30.0)
_HEALTHY_S = 60.0

_log = logging.getLogger(__name__)


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 8000, with_worker: bool = True) -> None:
    """Run the service until SIGTERM or SIGINT. Only in the main thread.

    Args:
        settings: Where the data lies.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one, which the log names.
        with_worker: Start a worker too. Without one, jobs wait for a `tailor worker` on the same data folder.

    Raises:
        ConflictError: The port is in use, or another service or worker runs on the data folder.
        InvalidRequestError: There is no such address on this machine.
        StorageError: The data folder or the database cannot be used.
    """
    with ExitStack() as stack:
        if with_worker:
            stack.enter_context(folder_lock(settings.data_dir, "server"))
            # A worker whose server was killed needs a moment to notice.
            with folder_lock(settings.data_dir, "worker", wait_s=_GRACE_S):
                pass
        listener = stack.enter_context(_listen(host, port))
        configure_logging()
        upgrade(settings)
        _register_shipped(settings)
        server = uvicorn.Server(
            uvicorn.Config(create_app(settings), log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_S)
        )
        stack.enter_context(_stoppable())
        if with_worker:
            stack.enter_context(WorkerProcess(settings))
        address, number = listener.getsockname()[:2]
        _log.info("listening", extra={"address": f"http://{address}:{number}", "data_dir": str(settings.data_dir)})
        server.run(sockets=[listener])


class WorkerProcess:
    """A worker that is started again when it dies, a little later each time. A context manager: leaving it ends both.

    Args:
        settings: Handed over on stdin, which stays open: when this process dies, however, the worker reads its end.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.model_dump_json()
        self._stop = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep_running, name="worker-keeper", daemon=True)

    def __enter__(self) -> WorkerProcess:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None while there is none."""
        return None if self._process is None else self._process.pid

    def _keep_running(self) -> None:
        backoff = _BACKOFF_S[0]
        while not self._stop.is_set():
            started = time.monotonic()
            code = self._run_once()
            if self._stop.is_set():
                return
            backoff = _BACKOFF_S[0] if time.monotonic() - started > _HEALTHY_S else min(2 * backoff, _BACKOFF_S[1])
            _log.warning("the worker ended with exit code %d; starting it again in %g s", code, backoff)
            self._stop.wait(backoff)

    def _run_once(self) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches the server, and the server stops the worker
        )
        self._process = process
        with process, suppress(BrokenPipeError):
            if process.stdin is not None:
                process.stdin.write(f"{self._settings}\n")
                process.stdin.flush()
            while process.poll() is None and not self._stop.wait(0.1):
                pass
            if process.poll() is None:
                _end(process)
        self._process = None
        return process.wait()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_WORKER_STOP_S)
    except subprocess.TimeoutExpired:
        _log.warning("the worker does not stop; killing it")
        process.kill()


def _register_shipped(settings: Settings) -> None:
    engine = build_engine(settings)
    try:
        with session_scope(session_factory(engine)) as session:
            register_shipped(session)
    except DatabaseError as error:
        raise StorageError(
            f"The database {engine.url!r} cannot be written: {reason_of(error)}. "
            "Check TAILOR_DATABASE_URL and the free space."
        ) from error
    finally:
        engine.dispose()


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Listening, not only bound: two sockets may be bound to one port as long as neither listens.
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"Port {port} on {host} is in use. Stop the other program or choose another port with --port.",
                code="port_in_use",
            ) from error
        raise InvalidRequestError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}. Choose another --host or --port.",
            code="invalid_address",
        ) from error
    with listener:
        yield listener


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let the server's end be an ordinary return: it raises the signal that stopped it once more when it is done."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
