"""The process that talks to HTCondor: ``python -m gridtide.queues.htcondor.asker``. The driver starts one per pool.

HTCondor's bindings block, keep their configuration in the process, and cannot be interrupted. So this process loads
them once and forks for each call: a call that hangs is killed alone, nothing that one call did reaches the next one,
and what a large answer needed is given back when it ends.

The driver sends one byte with a connected socket for each call. The forked child tells its process number, reads one
JSON line (``{"call": NAME, "arguments": {...}}``), writes JSON lines (``{"item": ...}`` as they come), and at the end
``{"end": true}`` or ``{"error": KIND, "what": TEXT}``. When the driver ends, so do all of these processes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping

Calls = Mapping[str, Callable[..., Iterable[object]]]


def main() -> None:
    """Serve calls until the driver has gone."""
    control = socket.socket(fileno=0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel takes away those that have ended
    from gridtide.queues.htcondor import calls

    control.sendall(b"+")
    while True:
        data, sockets, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            break
        connection = socket.socket(fileno=sockets[0])
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(connection, calls.CALLS)
        connection.close()
    os.killpg(0, signal.SIGKILL)


def _answer(connection: socket.socket, known: Calls) -> None:
    """One call, in a process of its own."""
    from gridtide.queues.htcondor.calls import CallFailed

    with connection, connection.makefile("rw", encoding="utf-8") as stream:

        def say(message: dict[str, object]) -> None:
            stream.write(json.dumps(message) + "\n")
            stream.flush()

        try:
            say({"process": os.getpid()})
            request = json.loads(stream.readline())
            for item in known[request["call"]](**request["arguments"]):
                say({"item": item})
            say({"end": True})
        except CallFailed as error:
            say({"error": error.kind, "what": error.what})
        # The one barrier of this process: whatever the bindings raise becomes an answer.
        except Exception as error:  # noqa: BLE001
            say({"error": "unreachable", "what": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(0)


if __name__ == "__main__":
    main()
