"""moto's server, and what it lacks of EC2's word: ``python -m tests.real.ec2.moto_server PORT_FILE``.

moto ignores client tokens, which EC2 promises to heed ("Ensuring idempotency in Amazon EC2 API requests"). Here a known
token answers the machine that it made; with other parameters it is refused. Its spot requests
cannot be interrupted; here they can, by a tag.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any, cast

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import InstanceBackend, Reservation
from moto.ec2.responses.spot_instances import SpotInstances
from moto.ec2.utils import filter_dict_attribute_mapping
from moto.moto_api._internal.models import MotoAPIBackend
from moto.server import ThreadedMotoServer

_LOCK = threading.RLock()
_plain_run = InstanceBackend.run_instances


class IdempotentParameterMismatch(EC2ClientError):
    """As EC2 says it."""

    def __init__(self) -> None:
        super().__init__(
            "IdempotentParameterMismatch",
            "The client token was used with other parameters by an earlier request.",
        )


def _run_instances(
    self: Any, image_id: str, count: int, user_data: Any, security_group_names: list[str], **more: Any
) -> Reservation:
    token = more.get("client_token")
    with _LOCK:  # moto is not safe in several threads
        tokens = self.__dict__.setdefault("gridtide_tokens", {})
        asked = (image_id, count, str(user_data), str(sorted(more.items(), key=lambda item: item[0])))
        if token in tokens:
            before, reservation = tokens[token]
            if before != asked:
                raise IdempotentParameterMismatch
            return cast(Reservation, reservation)
        reservation = _plain_run(self, image_id, count, user_data, security_group_names, **more)
        if token != "ABCDE":  # what moto takes for none
            tokens[token] = (asked, reservation)
        return reservation


def _describe_spot_instance_requests(self: Any) -> ActionResult:
    """One request per spot machine. A machine's tag ``test:interrupt`` is the status code of its request."""
    wanted = self._filters_from_querystring().get("status-code")
    rows = []
    for instance in self.ec2_backend.all_instances():
        tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
        code = tags.get("test:interrupt", "fulfilled")
        if instance.lifecycle == "spot" and (wanted is None or code in wanted):
            status = {"Code": code, "Message": f"Your instance is {code}."}
            rows.append({"InstanceId": instance.id, "State": "active", "Status": status})
    return ActionResult({"SpotInstanceRequests": rows})


def _reset(self: MotoAPIBackend) -> None:
    """moto empties all services, which takes most of the time of a short test."""
    for account in ec2_backends.values():
        account.reset()


def main() -> None:
    """Serve until standard input is closed: by whoever started this, or by their death."""
    InstanceBackend.run_instances = _run_instances  # type: ignore[method-assign]
    filter_dict_attribute_mapping["client-token"] = "client_token"
    SpotInstances.describe_spot_instance_requests = _describe_spot_instance_requests  # type: ignore[method-assign]
    MotoAPIBackend.reset = _reset  # type: ignore[method-assign]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    file = Path(sys.argv[1])
    file.with_suffix(".new").write_text(f"http://{host}:{port}")
    file.with_suffix(".new").rename(file)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
