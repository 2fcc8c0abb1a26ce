"""Every answer of an EC2 endpoint, and every failure to get one, as one of our errors."""

import botocore.exceptions as failures
import pytest
import urllib3.exceptions
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from gridtide.clouds.ec2_errors import TokenUsed, typed
from gridtide.clouds.refusals import MachineNotFound, NotAuthorized, PlainRefusal
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


def answer(code: str, status: int = 400, message: str = "words", **headers: str) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "HTTPHeaders": headers,
                "RequestId": "r",
                "HostId": "h",
                "RetryAttempts": 0,
            },
        },
        "RunInstances",
    )


MATRIX: list[tuple[str, int, type[CloudError]]] = [
    ("InsufficientInstanceCapacity", 500, NoCapacity),
    ("InsufficientHostCapacity", 500, NoCapacity),
    ("InsufficientCapacity", 500, NoCapacity),
    ("InsufficientFreeAddressesInSubnet", 400, NoCapacity),
    ("ReservationCapacityExceeded", 400, NoCapacity),
    ("SpotMaxPriceTooLow", 400, NoCapacity),
    ("InstanceLimitExceeded", 400, QuotaExceeded),
    ("VcpuLimitExceeded", 400, QuotaExceeded),
    ("MaxSpotInstanceCountExceeded", 400, QuotaExceeded),
    ("VolumeLimitExceeded", 400, QuotaExceeded),
    ("MaxIOPSLimitExceeded", 400, QuotaExceeded),
    ("SomethingNewLimitExceeded", 400, QuotaExceeded),
    ("InvalidAMIID.NotFound", 400, ImageNotFound),
    ("InvalidAMIID.Unavailable", 400, ImageNotFound),
    ("InvalidAMIID.Malformed", 400, ImageNotFound),
    ("InvalidInstanceID.NotFound", 400, MachineNotFound),
    ("NotFound", 404, MachineNotFound),
    ("InvalidInstanceID.Malformed", 400, MachineNotFound),
    ("RequestLimitExceeded", 503, Throttled),
    ("Throttling", 400, Throttled),
    ("ThrottlingException", 400, Throttled),
    ("EC2ThrottledException", 400, Throttled),
    ("TooManyRequestsException", 429, Throttled),
    ("Unknown", 429, Throttled),
    ("AuthFailure", 401, AuthenticationFailed),
    ("ExpiredToken", 400, AuthenticationFailed),
    ("RequestExpired", 400, AuthenticationFailed),
    ("SignatureDoesNotMatch", 403, AuthenticationFailed),
    ("InvalidClientTokenId", 403, AuthenticationFailed),
    ("OptInRequired", 403, AuthenticationFailed),
    ("PendingVerification", 400, AuthenticationFailed),
    ("SomethingNew", 401, AuthenticationFailed),
    ("SomethingNew", 403, AuthenticationFailed),
    ("UnauthorizedOperation", 403, NotAuthorized),
    ("IdempotentParameterMismatch", 400, TokenUsed),
    ("IdempotentInstanceTerminated", 400, LaunchRejected),
    ("InvalidParameterValue", 400, LaunchRejected),
    ("InvalidGroup.NotFound", 400, LaunchRejected),
    ("InvalidSubnetID.NotFound", 400, LaunchRejected),
    ("InvalidKeyPair.NotFound", 400, LaunchRejected),
    ("MissingParameter", 400, LaunchRejected),
    ("OperationNotPermitted", 400, LaunchRejected),
    ("Unsupported", 400, LaunchRejected),
    ("InvalidAction", 400, LaunchRejected),
    ("InternalError", 500, CloudUnavailable),
    ("InternalFailure", 500, CloudUnavailable),
    ("ServiceUnavailable", 503, CloudUnavailable),
    ("Unavailable", 503, CloudUnavailable),
    ("RequestTimeout", 408, CloudUnavailable),
    ("SomethingNew", 500, CloudUnavailable),
    ("SomethingNew", 502, CloudUnavailable),
    ("", 0, CloudUnavailable),
]


@pytest.mark.parametrize(("code", "status", "kind"), MATRIX)
def test_a_code_has_a_type(code: str, status: int, kind: type[CloudError]) -> None:
    error = typed(answer(code, status), "burst (eu-south-1)")
    assert type(error) is kind
    assert error.where == "burst (eu-south-1)"
    assert code in str(error)


@pytest.mark.parametrize(
    ("code", "scope"),
    [
        ("VcpuLimitExceeded", "cores"),
        ("InstanceLimitExceeded", "machines"),
        ("MaxSpotInstanceCountExceeded", "spot machines"),
        ("VolumeLimitExceeded", "volumes"),
        ("FlavourOfTheDayLimitExceeded", "flavouroftheday"),
    ],
)
def test_a_quota_has_its_scope(code: str, scope: str) -> None:
    error = typed(answer(code), "here")
    assert isinstance(error, QuotaExceeded)
    assert error.scope == scope


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (failures.NoCredentialsError(), AuthenticationFailed),
        (failures.PartialCredentialsError(provider="env", cred_var="secret"), AuthenticationFailed),
        (failures.ProfileNotFound(profile="torino"), AuthenticationFailed),
        (failures.CredentialRetrievalError(provider="sso", error_msg="expired"), AuthenticationFailed),
        (failures.TokenRetrievalError(provider="sso", error_msg="expired"), AuthenticationFailed),
        (failures.UnauthorizedSSOTokenError(), AuthenticationFailed),
        (failures.NoRegionError(), LaunchRejected),
        (failures.ParamValidationError(report="UserData: gtj_secret"), LaunchRejected),
        (failures.EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), CloudUnavailable),
        (failures.ConnectTimeoutError(endpoint_url="http://127.0.0.1:1"), CloudUnavailable),
        (failures.ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), CloudUnavailable),
        (failures.ConnectionClosedError(endpoint_url="http://127.0.0.1:1"), CloudUnavailable),
        (failures.SSLError(endpoint_url="https://127.0.0.1:1", error=Exception("self-signed")), CloudUnavailable),
        (failures.BotoCoreError(), CloudUnavailable),
        (ResponseParserError("no element found"), CloudUnavailable),
        (urllib3.exceptions.IncompleteRead(3, 4), CloudUnavailable),
        (ConnectionResetError(104, "reset"), CloudUnavailable),
        (KeyError("Reservations"), CloudUnavailable),
        (PlainRefusal(503, ""), CloudUnavailable),
        (PlainRefusal(429, "7"), Throttled),
        (PlainRefusal(401, ""), AuthenticationFailed),
        (PlainRefusal(404, ""), LaunchRejected),
        (NoCapacity("sold out"), NoCapacity),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else type(each).__name__,
)
def test_a_failure_has_a_type(failure: Exception, kind: type[CloudError]) -> None:
    error = typed(failure, "here")
    assert type(error) is kind
    assert "gtj_" not in str(error) + repr(error)


def test_the_time_to_wait_is_passed_on() -> None:
    for failure, seconds in (
        (answer("RequestLimitExceeded", 503, **{"retry-after": "12"}), 12.0),
        (answer("RequestLimitExceeded", 503, **{"retry-after": "Sat, 21 Nov 2009 07:28:00 GMT"}), 0.0),
        (answer("RequestLimitExceeded", 503), None),
        (PlainRefusal(429, "7"), 7.0),
    ):
        error = typed(failure, "here")
        assert isinstance(error, Throttled)
        assert error.retry_after == seconds


def test_long_words_are_cut() -> None:
    message = "You are not authorized. Encoded authorization failure message: " + "x" * 3000
    assert str(typed(answer("UnauthorizedOperation", 403, message), "here")).startswith(
        "here: UnauthorizedOperation: You are not authorized. (allow"
    )
    assert len(str(typed(answer("Unsupported", 400, "y" * 3000), "here"))) < 400
