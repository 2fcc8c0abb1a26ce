"""Every answer of an OpenStack service, and every failure to get one, as one of our errors."""

import json

import pytest
import requests
from keystoneauth1 import exceptions as keystone
from openstack.exceptions import ConfigException

from gridtide.clouds.openstack_errors import of_answer, scope, shortened, typed
from gridtide.clouds.refusals import Answered, MachineNotFound, NotAuthorized
from gridtide.errors import (
    AuthenticationFailed,
    CloudError,
    CloudUnavailable,
    ImageNotFound,
    LaunchRejected,
    NoCapacity,
    QuotaExceeded,
    Throttled,
)


def nova(name: str, message: str) -> bytes:
    """As Nova and Cinder word a refusal."""
    return json.dumps({name: {"code": 0, "message": message}}).encode()


MATRIX: list[tuple[int, bytes, type[CloudError]]] = [
    (400, nova("badRequest", "Invalid input for field/attribute name."), LaunchRejected),
    (400, nova("badRequest", "Can not find requested image"), ImageNotFound),
    (400, nova("badRequest", "Image 70a599e0 is not active."), ImageNotFound),
    (400, nova("badRequest", "Image 70a599e0 could not be found."), ImageNotFound),
    (400, nova("badRequest", "Network 70a599e0 could not be found."), LaunchRejected),
    (400, nova("badRequest", "Invalid key_name provided."), LaunchRejected),
    (400, nova("badRequest", "No more IP addresses available on network 70a599e0."), NoCapacity),
    (400, b"", LaunchRejected),
    (
        401,
        b'{"error": {"code": 401, "message": "The request you have made requires authentication."}}',
        AuthenticationFailed,
    ),
    (403, nova("forbidden", "Quota exceeded for cores: Requested 4, but already used 8 of 10 cores"), QuotaExceeded),
    (403, nova("forbidden", "Quota exceeded, too many servers in group"), QuotaExceeded),
    (403, nova("forbidden", "Maximum number of ports exceeded"), QuotaExceeded),
    (403, nova("forbidden", "Policy doesn't allow os_compute_api:servers:create to be performed."), NotAuthorized),
    (403, nova("forbidden", "Only volume-backed servers are allowed for flavors with zero disk."), LaunchRejected),
    (403, b"<html>Forbidden</html>", NotAuthorized),
    (404, nova("itemNotFound", "Instance 70a599e0 could not be found."), MachineNotFound),
    (404, nova("itemNotFound", "Flavor 70a599e0 could not be found."), MachineNotFound),
    (404, b"<h1>404 Not Found</h1> No image found with ID 70a599e0<br /><br />", ImageNotFound),
    (404, b"<html><body>nothing here</body></html>", CloudUnavailable),
    (404, b"", CloudUnavailable),
    (405, b"", LaunchRejected),
    (408, b"", CloudUnavailable),
    (
        409,
        nova("conflictingRequest", "Multiple possible networks found, use a Network ID to be more specific."),
        LaunchRejected,
    ),
    (409, nova("conflictingRequest", "Instance 70a599e0 is locked"), LaunchRejected),
    (
        409,
        b'{"NeutronError": {"message": "Quota exceeded for resources: [\'port\'].", "type": "OverQuota"}}',
        QuotaExceeded,
    ),
    (413, nova("overLimit", "This request was rate-limited."), Throttled),
    (
        413,
        nova("overLimit", "Quota exceeded for instances: Requested 1, but already used 2 of 2 instances"),
        QuotaExceeded,
    ),
    (413, nova("overLimit", "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded"), QuotaExceeded),
    (429, b"", Throttled),
    (429, b"<html>slow down</html>", Throttled),
    (500, nova("computeFault", "Unexpected API Error."), Answered),
    (502, b"<html>Bad Gateway</html>", CloudUnavailable),
    (503, b"", Answered),
    (504, b"", CloudUnavailable),
    (300, b"{}", CloudUnavailable),
    (599, b"", CloudUnavailable),
]


@pytest.mark.parametrize(("status", "body", "kind"), MATRIX)
def test_a_refusal(status: int, body: bytes, kind: type[CloudError]) -> None:
    error = of_answer(status, body, "", "private")
    assert type(error) is kind
    assert str(error).startswith("private: ")
    assert str(status) in str(error)


def test_only_an_answer_of_the_service_itself_says_that_a_machine_is_gone() -> None:
    spoken = of_answer(404, nova("itemNotFound", "Instance could not be found."), "", "private")
    assert isinstance(spoken, MachineNotFound)
    for body in (b"", b"404 page not found", b"{", b"[]", b'{"error": "no route"}'):
        assert not isinstance(of_answer(404, body, "", "private"), MachineNotFound)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Quota exceeded for cores: Requested 4, but already used 8 of 10 cores", "cores"),
        ("Quota exceeded for instances: Requested 1, but already used 2 of 2 instances", "machines"),
        ("Quota exceeded for cores, instances: Requested 1, 1, but already used 4, 4 of 4", "cores, machines"),
        ("Quota exceeded for ram: Requested 512", "memory"),
        ("Quota exceeded for resources: ['port'].", "port"),
        ("Quota exceeded, too many servers in group", "servers in group"),
        ("Maximum number of ports exceeded", "ports"),
        ("Maximum number of volumes allowed (10) exceeded", "volumes"),
        ("Quota exceeded somehow", "quota"),
    ],
)
def test_the_scope_of_a_quota(words: str, expected: str) -> None:
    assert scope(words) == expected


def test_when_to_ask_again() -> None:
    error = of_answer(429, b"", "7", "private")
    assert isinstance(error, Throttled)
    assert error.retry_after == 7.0


def test_what_nova_repeats_of_a_request_is_not_passed_on() -> None:
    secret = "Z2FyYmFnZQ=="
    body = nova("badRequest", f"Invalid input for field/attribute user_data. Value: {secret}. '{secret}' is too long")
    assert secret not in str(of_answer(400, body, "", "private"))
    assert len(shortened("long " * 1000)) < 310


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (keystone.Unauthorized("the password is wrong"), AuthenticationFailed),
        (keystone.NotFound("no such credential"), AuthenticationFailed),
        (keystone.Forbidden("not in this project"), AuthenticationFailed),
        (keystone.TooManyRequests("later"), Throttled),
        (keystone.InternalServerError("oops"), Answered),
        (keystone.ServiceUnavailable("later"), Answered),
        (keystone.BadGateway("gone"), CloudUnavailable),
        (keystone.EndpointNotFound("no compute endpoint in region X"), AuthenticationFailed),
        (keystone.MissingRequiredOptions([]), AuthenticationFailed),
        (ConfigException("Cloud torino was not found."), AuthenticationFailed),
        (keystone.ConnectTimeout("timed out"), CloudUnavailable),
        (keystone.ConnectFailure("refused"), CloudUnavailable),
        (keystone.SSLError("bad certificate"), CloudUnavailable),
        (keystone.DiscoveryFailure("not a version document"), CloudUnavailable),
        (requests.exceptions.ChunkedEncodingError("cut"), CloudUnavailable),
        (requests.exceptions.JSONDecodeError("Expecting value", "{", 1), CloudUnavailable),
        (PermissionError("clouds.yaml"), CloudUnavailable),
        (KeyError("servers"), CloudUnavailable),
        (TypeError("not a JSON object"), CloudUnavailable),
        (Throttled("as it is"), Throttled),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_failure(error: Exception, kind: type[CloudError]) -> None:
    assert type(typed(error, "private")) is kind


def test_a_log_in_that_finds_nothing_says_nothing_of_machines() -> None:
    assert not isinstance(typed(keystone.NotFound("no such credential"), "private"), MachineNotFound)
