"""Record conversations of AMQP 0-10 between somebody's client and somebody's broker, as fixtures for tests.

    python tests/conformance/captures010/recorder.py HOST:PORT FILE "WHAT IS DONE" -- COMMAND...

runs COMMAND with PEER=host:port of a proxy that passes every byte on to HOST:PORT, and writes what went by to FILE.
`{peer}` within COMMAND is replaced with the proxy's address as well. tests/protocol/captures010/README.md says how a
file is made; `record_all.py` beside makes them all.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

PROTOCOL_HEADER = 8
FRAME_HEADER = 12
COMMAND_SECONDS = 120
RUN = re.compile(r"(..) (?:\1 ){64,}")


class Recorder:
    """A proxy for any number of connections that notes each frame, in the order in which frames were whole."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._connections = 0
        self.lines: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname()[:2])
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._spawn(self._accept)

    def close(self) -> None:
        _shut(self._listener)
        for each in self._sockets:
            _shut(each)
        for thread in self._threads:
            thread.join()

    def _spawn(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            broker = socket.create_connection(self._target)
            self._sockets += [client, broker]
            self._connections += 1
            number = self._connections
            self._spawn(self._pass_on, client, broker, f"{number} >")
            self._spawn(self._pass_on, broker, client, f"{number} <")

    def _pass_on(self, source: socket.socket, sink: socket.socket, mark: str) -> None:
        """Pass bytes on until the end, a line for each frame. A frame is noted before it is sent on."""
        pending = b""
        while True:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            pending += data
            while (size := _whole(pending)) and len(pending) >= size:
                self._note(mark, pending[:size])
                pending = pending[size:]
            if not data:
                break
            try:
                sink.sendall(data)
            except OSError:
                break
        if pending:
            self._note(mark, pending)
        with self._lock:
            self.lines.append(f"{mark} end")
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _note(self, mark: str, data: bytes) -> None:
        with self._lock:
            self.lines.append(f"{mark} {as_text(data)}")


def as_text(data: bytes) -> str:
    """Hexadecimal; a byte that is repeated more than 64 times is written [61*1000]."""
    return RUN.sub(lambda run: f"[{run[1]}*{len(run[0]) // 3}]", data.hex(" ") + " ").replace(" ", "")


def _whole(data: bytes) -> int:
    """The size of the protocol header or frame that these bytes begin with, 0 when they are too few to say."""
    if data[:4] == b"AMQP":
        return PROTOCOL_HEADER
    return int.from_bytes(data[2:4], "big") if len(data) >= FRAME_HEADER else 0


def _shut(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    each.close()


def record(target: str, file: Path, header: list[str], command: list[str], environment: dict[str, str]) -> None:
    """Run a command through a proxy to `target` and write the capture.

    Raises subprocess.CalledProcessError when the command fails, with its output.
    """
    host, _, port = target.rpartition(":")
    with ExitStack() as stack:
        recorder = Recorder(host, int(port))
        stack.callback(recorder.close)
        command = [word.replace("{peer}", recorder.address) for word in command]
        subprocess.run(command, env={**os.environ, **environment, "PEER": recorder.address}, check=True,
                       stdin=subprocess.DEVNULL, timeout=COMMAND_SECONDS)
    file.write_text("".join(f"# {line}\n" for line in header) + "\n".join(recorder.lines) + "\n")


if __name__ == "__main__":
    record(sys.argv[1], Path(sys.argv[2]), [sys.argv[3]], sys.argv[5:], {})
