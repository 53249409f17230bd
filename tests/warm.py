"""A `hyena` that starts at once: a server has imported torch and the verbs, and forks for every command.

Importing torch costs seconds, and tests that type commands, or compare two ranks with one, start many. What a
command launches is forked as well. `tests/test_distributed.py` starts real ones through torchrun's launcher.
"""

import atexit
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Imported by commands where they need them; torch's compiler is imported by its optimizers.
IMPORTED_LATE = ("matplotlib.figure", "sklearn.linear_model", "torch._dynamo")
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
arguments = sys.argv[3:] if sys.argv[1:3] == ["-m", "hyenacli"] else sys.argv[1:]
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, lambda number, _: server.send(bytes([number])))
request = json.dumps([arguments, os.getcwd(), dict(os.environ)]) + "\\n"
socket.send_fds(server, [request.encode()], [0, 1, 2])
sys.exit((server.recv(1) or b"\\1")[0])
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


@cache
def command() -> Path:
    """Start the server, which lives as long as this process, and return the path of an executable `hyena`."""
    folder = tempfile.TemporaryDirectory()
    address, client = f"{folder.name}/socket", Path(folder.name) / "hyena"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", address, str(client)], env=environment, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    client.write_text(CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o755)

    def stop() -> None:
        server.kill()
        server.wait()
        server.stdout.close()
        folder.cleanup()

    atexit.register(stop)
    return client


def serve(address: str, executable: str) -> None:
    """Fork for every client; a client's arguments, folder, environment and streams become the child's."""
    import torch
    import torch._dynamo  # every optimizer imports it, for seconds

    import hyenacli
    from hyenacli.app import app

    for name in IMPORTED_LATE:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(hyenacli.__path__, "hyenacli."):
        if module.name != "hyenacli.__main__":
            importlib.import_module(module.name)
    torch.set_num_threads(1)
    sys.executable = executable  # the launcher of several processes starts it with `-m hyenacli`
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            answer(client, app)
        client.close()


def answer(client: socket.socket, app: Callable[..., object]) -> None:
    """Run one command, tell the client its exit code, and end this process."""
    request, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
    while not request.endswith(b"\n"):
        request += client.recv(1 << 20)
    threading.Thread(target=obey, args=(client,), daemon=True).start()
    arguments, folder, environment = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
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


if __name__ == "__main__":
    serve(*sys.argv[1:])
