"""The site file that ``gridtide init`` writes."""

from __future__ import annotations

from string import Template
from typing import Final

from pydantic_core import PydanticCustomError

from gridtide.errors import SiteFileError
from gridtide.site.base import LONGEST_SITE_NAME, check_name

_STARTER: Final = Template("""\
# A Gridtide site. All keys: docs/reference/site-file.md; try `gridtide check` after a change.
# Durations and sizes have units: "500 ms", "90 s", "5 min", "2 h", "1 day"; "512 MiB", "2 GiB", "2 GB".

[site]
name = "$name"
# state = "state"                # all that the site keeps; relative paths start at this file

[service]
listen = "127.0.0.1:8470"        # beyond loopback it speaks TLS by itself
# url = "https://$name.example.org:8470"   # what workers and users call, if that is another address

[queues.jobs]
type = "pilot"                   # the built-in task queue: `gridtide submit FILE`
maximum_losses = 3               # a job whose worker was lost so often fails

[clouds.local]
type = "process"                 # workers are processes of this machine
quota = { machines = 8 }

[clouds.local.shapes.small]
cores = 1
memory = "1 GiB"
disk = "2 GiB"

[groups.workers]
queue = "jobs"
clouds = ["local"]               # in order: the next one when the first is full or broken
shapes = ["small"]
minimum = 0
maximum = 4
policy = { type = "tide", idle_for = "1 min" }    # also: queue, elastiq, per_job, fixed, load, schedule
""")


def starter(name: str) -> str:
    """A small site with this name that works as it is. SiteFileError when the name cannot be one."""
    try:
        check_name(name, LONGEST_SITE_NAME)
    except PydanticCustomError as error:
        context = error.context or {}
        raise SiteFileError(str(context["what"]), remedy=str(context["right"])) from None
    return _STARTER.substitute(name=name)
