#!/usr/bin/env python3
"""Fetches what did not fit into the user-data, with the join token, once; runs the scripts in it. Runs in the machine.

Standard library only. The machine names itself with a number of its own making: the service gives the rest to the first
reader alone, so that a lost answer can be asked for again and nobody else can read it.
"""

import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

CONTEXT = "/var/lib/gridtide/context.json"


def main() -> int:
    with open(CONTEXT) as file:
        context = json.load(file)
    reader = secrets.token_urlsafe(24)
    trust = ssl.create_default_context(cadata=context["ca"]) if context.get("ca") else None
    pause = 1.0
    while True:
        for address in context["service"]:
            headers = {"Authorization": "Bearer " + context["join_token"], "Gridtide-Reader": reader}
            request = urllib.request.Request(address + "/v1/worker/context", headers=headers)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=30, context=trust) as answer:  # noqa: S310
                    return run(json.load(answer)["scripts"])
            except urllib.error.HTTPError as error:
                if error.code in (401, 403, 404, 409):
                    sys.stderr.write(f"gridtide: the context was refused ({error.code})\n")
                    return 1
            except (OSError, ValueError, KeyError):
                pass
        time.sleep(pause)
        pause = min(pause * 2, 30.0)


def run(scripts: "list[dict[str, str]]") -> int:
    for script in scripts:
        handle, path = tempfile.mkstemp()
        with os.fdopen(handle, "w") as file:
            file.write(script["content"])
        os.chmod(path, 0o700)
        status = subprocess.run([path], check=False).returncode  # noqa: S603
        if status:
            sys.stderr.write(f"gridtide: script {script['name']} failed: {status}\n")
        os.unlink(path)
    return 0


sys.exit(main())
