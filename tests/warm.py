"""A `hyena` that starts at once: it is forked from a server, which has imported torch and the verbs.

Importing torch costs seconds, and tests that type commands, or compare two ranks with one, start many. What a
command launches is forked as well. `tests/test_distributed.py` starts real ones through torchrun's launcher.
"""

import atexit
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path

from hyenacli.app import app

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, lambda number, _: server.send(bytes([number])))
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]) + "\\n"
socket.send_fds(server, [request.encode()], [0, 1, 2])
sys.exit((server.recv(1) or b"\\1")[0])
"""
# The launcher of several processes, and the writer of bigWigs, start Python.
PYTHON = """#!/bin/sh
[ "$1 $2" = "-m hyenacli" ] || exec {python} "$@"
shift 2
exec {client} "$@"
"""


@dataclass(frozen=True)
class Job:
    """How the ranks of a job ended: the exit code of each, and what all of them wrote."""

    exit_codes: list[int]
    stdout: str
    stderr: str


def run_job(line: str, *more: object, ranks: int = 2, folder: Path | None = None) -> Job:
    """Run `hyena LINE MORE...` in several processes as torchrun does; LINE is split at spaces."""
    arguments = [command(), *line.split(), *map(str, more)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pipe = subprocess.PIPE
    processes = []
    for rank in map(str, range(ranks)):
        variables = job | {"RANK": rank, "LOCAL_RANK": rank} if ranks > 1 else {}
        environment = os.environ | variables
        processes.append(
            subprocess.Popen(arguments, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)
        )
    outputs = [process.communicate() for process in processes]
    return Job(
        [process.returncode for process in processes],
        "".join(stdout for stdout, _ in outputs),
        "".join(stderr for _, stderr in outputs),
    )


def forked(target: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a process that has imported all that commands need."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.imported"])
    process = server.Process(target=target, args=arguments)
    process.start()
    return process


@cache
def command() -> Path:
    """Start the server, which lives as long as this process, and return the path of an executable `hyena`."""
    folder = tempfile.TemporaryDirectory()
    address, client = f"{folder.name}/socket", Path(folder.name) / "hyena"
    quick_python = client.with_name("python")
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    quick_python.write_text(PYTHON.format(python=sys.executable, client=client))
    for path in (client, quick_python):
        path.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        server = forked(serve, listener, str(quick_python))

    def stop() -> None:
        server.kill()
        server.join()
        folder.cleanup()

    atexit.register(stop)
    return client


def serve(listener: socket.socket, executable: str) -> None:
    """Fork for every client; a client's arguments, folder, environment and streams become the child's.

    Args:
        listener: where clients come.
        executable: the Python that commands start.
    """
    sys.executable = executable
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            answer(client)
        client.close()


def answer(client: socket.socket) -> None:
    """Run one command, tell the client its exit code, and end this process."""
    request, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
    while not request.endswith(b"\n"):
        request += client.recv(1 << 20)
    threading.Thread(target=obey, args=(client,), daemon=True).start()
    arguments, folder, environment = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  (the server's is empty)
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    sys.argv = ["hyena", *arguments]
    try:
        app(arguments, prog_name="hyena")
    except SystemExit as end:
        sys.stderr.flush()
        client.send(bytes([end.code or 0]))
    finally:
        os._exit(1)


def obey(client: socket.socket) -> None:
    """Get the signals that the client gets, and die with it."""
    while signals := client.recv(1):
        os.kill(os.getpid(), signals[0])
    os.kill(os.getpid(), signal.SIGKILL)
