"""The same context in each format: what a machine's first program reads as user-data."""

from __future__ import annotations

import base64
import gzip
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from types import MappingProxyType
from typing import Any, Final

from gridtide.context.layers import LayerKind, Part
from gridtide.errors import ContextError
from gridtide.model.contexts import ContextFormat

AGENT_CONTEXT: Final = "/var/lib/gridtide/context.json"
AGENT_PROGRAM: Final = "/usr/lib/gridtide/agent.py"

_START: Final = f"""#!/bin/sh
# Starts Gridtide's agent on the context that was written before.
user=USER
if [ -d /run/systemd/system ] && [ -e /etc/systemd/system/gridtide-agent@.service ]; then
    chown -R $user {AGENT_CONTEXT.rpartition("/")[0]}
    exec systemctl --no-block start gridtide-agent@$user.service
fi
exec setsid python3 -I {AGENT_PROGRAM} --context {AGENT_CONTEXT} </dev/null >/dev/console 2>&1 &
"""


def _start(agent: Mapping[str, Any]) -> str:
    """As root only where the context calls for it; an image without our unit has no user for the agent either."""
    return _START.replace("USER", "root" if agent.get("privileged") is True else "gridtide")


def render(form: ContextFormat, agent: Mapping[str, Any], parts: Sequence[Part]) -> bytes:
    """The user-data. ContextError when a part cannot be expressed in the format."""
    return _RENDERERS[form](agent, parts)


def _agent(agent: Mapping[str, Any], parts: Sequence[Part]) -> bytes:
    scripts = []
    for part in parts:
        if part.kind not in (LayerKind.SCRIPT, LayerKind.BOOTHOOK):
            raise _unfit(part, ContextFormat.AGENT, "write it as a script, or take an image with cloud-init")
        scripts.append({"name": part.name, "content": _as_script(part)})
    document = {**agent, "scripts": scripts} if scripts else dict(agent)
    return json.dumps(document, indent=1).encode()


def _as_script(part: Part) -> str:
    """A boothook is a script below its first line."""
    return part.content.partition("\n")[2] if part.kind is LayerKind.BOOTHOOK else part.content


_MIME: Final = MappingProxyType(
    {LayerKind.CLOUD_CONFIG: "cloud-config", LayerKind.SCRIPT: "x-shellscript", LayerKind.BOOTHOOK: "cloud-boothook"}
)


def _cloud_init(agent: Mapping[str, Any], parts: Sequence[Part]) -> bytes:
    """Multi-part MIME (cloud-init documentation, "MIME multi-part archive"); the agent starts last."""
    for part in parts:
        if part.kind not in _MIME:
            raise _unfit(part, ContextFormat.CLOUD_INIT, "write it as #cloud-config or as a script")
    # Always the same words between the parts: equal contexts must be equal bytes.
    message = MIMEMultipart(boundary="==gridtide-context==")
    own = "#cloud-config\n" + json.dumps({"write_files": [_file(agent)]}, indent=1) + "\n"
    message.attach(_attachment("cloud-config", "gridtide-context.cfg", own))
    for part in parts:
        message.attach(_attachment(_MIME[part.kind], part.name, part.content))
    message.attach(_attachment("x-shellscript", "zz-gridtide-start.sh", _start(agent)))
    return message.as_bytes()


def _file(agent: Mapping[str, Any]) -> dict[str, str]:
    # JSON is YAML, so that no value can break out of its place.
    return {"path": AGENT_CONTEXT, "permissions": "0600", "owner": "root:root", "content": json.dumps(agent)}


def _attachment(kind: str, name: str, text: str) -> MIMEText:
    made = MIMEText(text, kind, "utf-8" if not text.isascii() else "us-ascii")
    if kind == "cloud-config":
        # Lists of several parts are joined; without it the last one's write_files would replace all others.
        made.add_header("Merge-Type", "list(append)+dict(recurse_array)+str()")
    made.add_header("Content-Disposition", "attachment", filename=name)
    return made


def _amiconfig(agent: Mapping[str, Any], parts: Sequence[Part]) -> bytes:
    """CernVM's amiconfig: INI sections, then a script that it runs (CernVM documentation, "Contextualisation")."""
    sections, scripts = [], []
    for part in parts:
        if part.kind is LayerKind.AMICONFIG:
            sections.append(part.content.partition("\n")[2].strip("\n"))
        elif part.kind in (LayerKind.SCRIPT, LayerKind.BOOTHOOK):
            scripts.append(part)
        else:
            raise _unfit(part, ContextFormat.AMICONFIG, "write it as [amiconfig] sections or as a script")
    head = "\n".join(["[amiconfig]", *(section for section in sections if section)])
    return f"{_shell(agent, scripts)}\nexit\n{head}\n".encode()


def _shell(agent: Mapping[str, Any], scripts: Sequence[Part]) -> str:
    """One script that writes the agent's context, runs the scripts and starts the agent. No value is ever expanded."""
    lines = ["#!/bin/sh", "umask 077", f"mkdir -p {AGENT_CONTEXT.rpartition('/')[0]}"]
    lines.append(f"printf %s {shlex.quote(json.dumps(agent))} > {AGENT_CONTEXT}")
    for part in scripts:
        packed = base64.b64encode(_as_script(part).encode()).decode()
        lines.append(f"script=$(mktemp) && printf %s {packed} | base64 -d > $script && chmod 700 $script && $script")
        lines.append(f'[ $? -eq 0 ] || echo "gridtide: script {shlex.quote(part.name)} failed" > /dev/console')
    packed = base64.b64encode(_start(agent).encode()).decode()
    lines.append(f"printf %s {packed} | base64 -d | sh")
    return "\n".join(lines)


def _opennebula(agent: Mapping[str, Any], parts: Sequence[Part]) -> bytes:
    """``context.sh``: shell variables (OpenNebula documentation, "Contextualization"). Values are single-quoted."""
    for part in parts:
        if part.kind not in (LayerKind.SCRIPT, LayerKind.BOOTHOOK):
            raise _unfit(part, ContextFormat.OPENNEBULA, "write it as a script")
    values = {
        "NETWORK": "YES",
        "SET_HOSTNAME": str(agent["worker"]),
        "START_SCRIPT_BASE64": base64.b64encode(_shell(agent, parts).encode()).decode(),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()).encode()


def _unfit(part: Part, form: ContextFormat, remedy: str) -> ContextError:
    return ContextError(
        f"a {part.kind.value} cannot be told in the format {form.value!r}", where=part.name, remedy=remedy
    )


_RENDERERS: Final[Mapping[ContextFormat, Callable[[Mapping[str, Any], Sequence[Part]], bytes]]] = MappingProxyType(
    {
        ContextFormat.AGENT: _agent,
        ContextFormat.CLOUD_INIT: _cloud_init,
        ContextFormat.AMICONFIG: _amiconfig,
        ContextFormat.OPENNEBULA: _opennebula,
    }
)

COMPRESSIBLE: Final = frozenset({ContextFormat.CLOUD_INIT})
"""Formats whose reader takes gzip (cloud-init documentation, "Gzip compressed content")."""


def compressed(user_data: bytes) -> bytes:
    """Always the same bytes for the same content."""
    return gzip.compress(user_data, 9, mtime=0)
