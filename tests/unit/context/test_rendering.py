"""What machines are told: layers, variables, formats, sizes."""

from __future__ import annotations

import base64
import email
import gzip
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gridtide.context.agent import ContextSettings
from gridtide.context.layers import Layer, LayerKind, fill, parts_of
from gridtide.context.rendering import Telling, masked, user_data
from gridtide.errors import ContextError
from gridtide.model.contexts import ContextFormat
from tests.unit.planning.worlds import worker

TOKEN = "gtj_w1.SECRET-HALF"
SETTINGS = ContextSettings(("http://10.0.2.2:8470",), None, "poweroff")
SCRIPT = Layer("site/hello.sh", b"#!/bin/sh\necho {{ worker }} 'it''s' > hello\n")
CLOUD_CONFIG = Layer("group/worker.yaml", b"#cloud-config\npackages: [{{ package }}]\n")
AMICONFIG = Layer("vo.ini", b"[amiconfig]\nplugins=cernvm\n[cernvm]\nusers=grid:{{ group }}:x\n")


def telling(form: ContextFormat, *layers: Layer, limit: int | None = None) -> Telling:
    return Telling(SETTINGS, form, layers, limit, {}, {"package": "jq"})


def rendered(form: ContextFormat, *layers: Layer) -> bytes:
    return user_data(worker(), TOKEN, telling(form, *layers)).content


def test_the_agents_own_format_carries_scripts() -> None:
    told = json.loads(rendered(ContextFormat.AGENT, SCRIPT))
    assert (told["worker"], told["join_token"], told["shutdown"]) == ("w1", TOKEN, "poweroff")
    assert told["scripts"] == [{"name": "hello.sh", "content": "#!/bin/sh\necho w1 'it''s' > hello\n"}]


def test_only_a_privileged_context_says_so() -> None:
    assert "privileged" not in json.loads(rendered(ContextFormat.AGENT))
    root = Telling(replace(SETTINGS, privileged=True), ContextFormat.AGENT, (), None, {}, {})
    assert json.loads(user_data(worker(), TOKEN, root).content)["privileged"] is True


@pytest.mark.parametrize("form", [ContextFormat.CLOUD_INIT, ContextFormat.AMICONFIG, ContextFormat.OPENNEBULA])
@pytest.mark.parametrize(("privileged", "user"), [(False, "gridtide"), (True, "root")])
def test_the_agent_is_started_as_its_user(form: ContextFormat, privileged: bool, user: str) -> None:
    content = user_data(
        worker(), TOKEN, Telling(replace(SETTINGS, privileged=privileged), form, (), None, {}, {})
    ).content
    # Shell formats carry the program in base 64, one of them in base 64 once more.
    for _ in range(2):
        content += b"".join(base64.b64decode(word) for word in re.findall(rb"[A-Za-z0-9+/]{80,}=*", content))
    assert f"user={user}\n".encode() in content
    assert b"systemctl --no-block start gridtide-agent@$user.service" in content


def test_cloud_init_gets_parts_in_order_and_starts_the_agent_last() -> None:
    content = rendered(ContextFormat.CLOUD_INIT, SCRIPT, CLOUD_CONFIG)
    parts = [part for part in email.message_from_bytes(content).walk() if not part.is_multipart()]
    assert [part.get_filename() for part in parts] == [
        "gridtide-context.cfg",
        "hello.sh",
        "worker.yaml",
        "zz-gridtide-start.sh",
    ]
    assert [part.get_content_subtype() for part in parts] == [
        "cloud-config",
        "x-shellscript",
        "cloud-config",
        "x-shellscript",
    ]
    first = parts[0].get_payload(decode=True)
    assert isinstance(first, bytes)
    (file,) = json.loads(first.partition(b"\n")[2])["write_files"]
    assert (file["path"], file["permissions"]) == ("/var/lib/gridtide/context.json", "0600")
    assert json.loads(file["content"])["join_token"] == TOKEN
    assert rendered(ContextFormat.CLOUD_INIT, SCRIPT, CLOUD_CONFIG) == content, "equal contexts are equal bytes"


def test_amiconfig_is_a_script_and_then_sections() -> None:
    content = rendered(ContextFormat.AMICONFIG, AMICONFIG, SCRIPT).decode()
    script, _, sections = content.partition("\nexit\n")
    assert script.startswith("#!/bin/sh\n")
    assert sections == "[amiconfig]\nplugins=cernvm\n[cernvm]\nusers=grid:grid:x\n"


def test_opennebulas_variables_survive_a_shell(tmp_path: Path) -> None:
    (tmp_path / "context.sh").write_bytes(rendered(ContextFormat.OPENNEBULA, SCRIPT))
    shown = subprocess.run(
        ["sh", "-c", '. ./context.sh; echo "$SET_HOSTNAME"; printf %s "$START_SCRIPT_BASE64" | base64 -d'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    name, _, script = shown.partition("\n")
    assert name == "w1"
    (tmp_path / "start.sh").write_text(script)
    subprocess.run(["sh", "-n", "start.sh"], cwd=tmp_path, check=True)
    assert script.startswith("#!/bin/sh\n")


@pytest.mark.parametrize("form", [ContextFormat.AMICONFIG, ContextFormat.OPENNEBULA])
def test_the_shell_formats_write_the_context_unchanged(form: ContextFormat, tmp_path: Path) -> None:
    awkward = Telling(SETTINGS, form, (), None, {"Note": 'it\'s $HOME `id` \\ "x"'}, {})
    content = user_data(worker(), TOKEN, awkward).content.decode()
    if form is ContextFormat.OPENNEBULA:
        command = f'{content}\nprintf %s "$START_SCRIPT_BASE64" | base64 -d'
        content = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    lines = content.replace("/var/lib/gridtide", str(tmp_path)).splitlines()
    subprocess.run(["sh", "-c", "\n".join(lines[:4])], check=True)
    assert json.loads((tmp_path / "context.json").read_text())["attributes"]["Note"] == 'it\'s $HOME `id` \\ "x"'


@pytest.mark.parametrize(
    ("form", "layer"),
    [
        (ContextFormat.AGENT, CLOUD_CONFIG),
        (ContextFormat.OPENNEBULA, CLOUD_CONFIG),
        (ContextFormat.AMICONFIG, CLOUD_CONFIG),
        (ContextFormat.CLOUD_INIT, AMICONFIG),
    ],
)
def test_what_a_format_cannot_say_is_refused(form: ContextFormat, layer: Layer) -> None:
    with pytest.raises(ContextError, match="cannot be told in the format"):
        rendered(form, layer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#cloud-config\na: [1,\n", "x:3: is not YAML"),
        (b"#cloud-config\n- a\n", "x:2: holds no keys"),
        (b"hello\n", "x:1: its first line does not say what it is: 'hello'"),
        (b"#!/bin/sh\n\xff\n", "x:2: is not UTF-8"),
        (b"#!/bin/sh\n\necho {{ wrker }}\n", "x:3: nobody defines 'wrker' (did you mean 'worker'?)"),
        (b"#!/bin/sh\n{{ 7*7 }}\n", "x:2: nobody defines '7*7'"),
        (b"", "x:1: its first line does not say"),
    ],
)
def test_errors_name_file_and_line(content: bytes, message: str) -> None:
    with pytest.raises(ContextError) as caught:
        parts_of([Layer("x", content)], {"worker": "w1"})
    assert message in str(caught.value)


def test_only_named_variables_are_replaced() -> None:
    assert fill("{{worker}} {{ worker }} ${worker} {% x %} {{ braces }}x}}", {"worker": "w1"}, "x") == (
        "w1 w1 ${worker} {% x %} {{x}}"
    )


def test_a_boothook_is_one_and_a_script_elsewhere() -> None:
    hook = Layer("h", b"#cloud-boothook\n#!/bin/sh\ntrue\n")
    assert parts_of([hook], {})[0].kind is LayerKind.BOOTHOOK
    assert json.loads(rendered(ContextFormat.AGENT, hook))["scripts"][0]["content"] == "#!/bin/sh\ntrue\n"


def test_what_does_not_fit_is_compressed_then_fetched_then_refused() -> None:
    dull = Layer("dull.sh", b"#!/bin/sh\n" + b"echo hello\n" * 4000)
    told = user_data(worker(), TOKEN, telling(ContextFormat.CLOUD_INIT, dull, limit=16_384))
    assert told.fetched is None
    assert b"echo hello" in gzip.decompress(told.content)

    noise = Layer("noise.sh", b"#!/bin/sh\n# " + bytes(str(hash(("x", 1))), "ascii") * 4000 + b"\n")
    told = user_data(worker(), TOKEN, telling(ContextFormat.AGENT, noise, limit=16_384))
    assert len(told.content) <= 16_384
    assert json.loads(told.content)["fetch"] is True
    assert told.fetched is not None
    assert [one["name"] for one in json.loads(told.fetched)["scripts"]] == ["noise.sh"]

    with pytest.raises(ContextError, match="without its scripts, the cloud takes 300"):
        user_data(worker(), TOKEN, telling(ContextFormat.AGENT, noise, limit=300))


def test_people_do_not_see_the_tokens_secret() -> None:
    for form in ContextFormat:
        assert b"SECRET-HALF" not in masked(rendered(form), TOKEN) or form in {
            ContextFormat.OPENNEBULA,  # inside base64
        }
