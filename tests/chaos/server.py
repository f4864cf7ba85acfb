"""A real MLflow server that can be stopped and started, and a proxy in front of it that loses what it carries."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from tests.patience import PATIENCE_S

Fault = Literal["drop", "500", "delay"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Server:
    """``mlflow server`` on loopback over one database; artifacts go through it."""

    folder: Path
    store: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        store = self.store or f"sqlite:///{self.folder / 'server.db'}"
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", store, "--artifacts-destination", str(self.folder / "server-artifacts"),
        ]  # fmt: skip
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, env=environment, start_new_session=True
            )
        until = time.monotonic() + PATIENCE_S
        while not self._healthy():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < until, f"no server within {PATIENCE_S:g} s"
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class LossyProxy:
    """Forwards to a server. The first request, and then every `every`-th, to a matching endpoint suffers its fault.

    ``drop``: the server has done it, and the client never hears of it. ``500``: the server never hears of it.
    ``delay``: the answer comes late.
    """

    def __init__(self, target: Server, faults: dict[str, Fault], every: int = 29, delay_s: float = 1.0) -> None:
        self._target, self._faults, self._every, self._delay_s = target, faults, every, delay_s
        self._seen: dict[str, int] = dict.fromkeys(faults, 0)
        self.suffered: dict[str, int] = dict.fromkeys(faults, 0)
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _carry(self) -> None:
                proxy._carry(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _carry  # noqa: N815 (the standard library's names)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LossyProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _carry(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self._fault(f"{request.command} {request.path}")
        if fault == "500":
            self._reply(request, 500, b'{"error_code": "INTERNAL_ERROR", "message": "injected"}', "application/json")
            return
        connection = http.client.HTTPConnection("127.0.0.1", self._target.port, timeout=60)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in {"host", "accept-encoding"}}
        try:
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            request.close_connection = True
            return
        finally:
            connection.close()
        if fault == "drop":
            request.close_connection = True
            return
        if fault == "delay":
            time.sleep(self._delay_s)
        self._reply(request, answer.status, content, answer.headers.get("Content-Type", "application/json"))

    def _fault(self, line: str) -> Fault | None:
        with self._lock:
            for pattern, fault in self._faults.items():
                if re.search(pattern, line):
                    self._seen[pattern] += 1
                    if (self._seen[pattern] - 1) % self._every == 0:
                        self.suffered[pattern] += 1
                        return fault
        return None

    @staticmethod
    def _reply(request: BaseHTTPRequestHandler, status: int, content: bytes, kind: str) -> None:
        try:
            request.send_response(status)
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)
        except OSError:
            request.close_connection = True
