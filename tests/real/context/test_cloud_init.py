"""cloud-init's own schema check takes what we render."""

from __future__ import annotations

import email
import subprocess
from pathlib import Path

from gridtide.context.agent import ContextSettings
from gridtide.context.layers import Layer
from gridtide.context.rendering import Telling, user_data
from gridtide.model.contexts import ContextFormat
from tests.real.engines import need
from tests.unit.planning.worlds import worker

LAYERS = (
    Layer("a.yaml", b"#cloud-config\npackages: [jq]\nwrite_files:\n- {path: /etc/motd, content: hello}\n"),
    Layer("b.sh", b"#!/bin/sh\necho {{ worker }}\n"),
)


def test_every_cloud_config_passes_the_schema_check(tmp_path: Path) -> None:
    need({"cloud-init": "cloud-init"})
    settings = ContextSettings(("https://site.example.org:8470",), "-----BEGIN CERTIFICATE-----\nx\n", "poweroff")
    telling = Telling(settings, ContextFormat.CLOUD_INIT, LAYERS, 16_384, {"Note": "it's: {a}\n#"}, {})
    content = user_data(worker(), "gtj_w1.SECRET", telling).content
    checked = 0
    for part in email.message_from_bytes(content).walk():
        if part.get_content_subtype() == "cloud-config":
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            file = tmp_path / f"{checked}.yaml"
            file.write_bytes(payload)
            done = subprocess.run(
                ["cloud-init", "schema", "-c", str(file)], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Valid" in done.stdout
            checked += 1
    assert checked == 2
