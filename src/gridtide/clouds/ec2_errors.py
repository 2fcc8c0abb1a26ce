"""What an EC2 endpoint's refusals mean: error code -> type.

Codes are those of the EC2 API reference, "Error codes for the Amazon EC2 API", and of the common errors of AWS. Where
a code is not in the table its form decides, then the HTTP status; what is left says nothing, so it is CloudUnavailable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    CredentialRetrievalError,
    InvalidConfigError,
    InvalidRegionError,
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
    UnknownCredentialError,
)
from botocore.parsers import ResponseParserError

from gridtide.clouds.refusals import MachineNotFound, NotAuthorized, PlainRefusal, wait_of
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


class TokenUsed(LaunchRejected):
    """The client token has launched a machine already, with other parameters (another join token, for example)."""


_NO_CAPACITY: Final = frozenset(
    {
        "InsufficientCapacity",
        "InsufficientCapacityOnHost",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientVolumeCapacity",
        "ReservationCapacityExceeded",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
    }
)

_QUOTAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DiskImageSizeTooLarge": "disk",
        "InstanceLimitExceeded": "machines",
        "MaxIOPSLimitExceeded": "disk operations",
        "MaxSpotInstanceCountExceeded": "spot machines",
        "NetworkInterfaceLimitExceeded": "network interfaces",
        "PrivateIpAddressLimitExceeded": "addresses",
        "ReservedInstancesLimitExceeded": "machines",
        "SpotInstanceCountLimitExceeded": "spot machines",
        "VcpuLimitExceeded": "cores",
        "VolumeIOPSLimit": "disk operations",
        "VolumeLimitExceeded": "volumes",
    }
)
"""With the scope of each. Others that end in LimitExceeded have what stands before that as their scope."""

_THROTTLED: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)

_AUTHENTICATION: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "Blocked",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurityToken",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "PendingVerification",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)

_IMAGE: Final = frozenset({"InvalidAMIID.Malformed", "InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"})
# "NotFound" alone is what OpenStack's ec2-api says of a machine that Nova is just deleting. It ends an order to end the
# machine, and proves nothing: the listing does.
_MACHINE: Final = frozenset(
    {"InvalidInstanceID", "InvalidInstanceID.Malformed", "InvalidInstanceID.NotFound", "NotFound"}
)

_UNAVAILABLE: Final = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "RequestTimeout",
        "RequestTimeoutException",
        "ResourceNotReady",
        "ServerInternal",
        "ServiceUnavailable",
        "Unavailable",
    }
)

_NO_CREDENTIALS: Final = (
    ConfigNotFound,
    ConfigParseError,
    CredentialRetrievalError,
    InvalidConfigError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
    UnknownCredentialError,
)

_RENEW: Final = "renew the credentials that boto3 finds, or set profile or credentials of the cloud"
_POLICY: Final = "allow the action in the policy of these credentials: see docs/how-to/use-ec2.md"
_WORDS: Final = 300
"""Characters of the cloud's own words that are passed on: encoded authorisation messages have thousands."""


def typed(error: Exception, where: str) -> CloudError:
    """Anything that boto3 raises, as one of ours. What is not known of says nothing: CloudUnavailable."""
    if isinstance(error, CloudError):
        return error
    if isinstance(error, ClientError):
        return _of_answer(error, where)
    if isinstance(error, PlainRefusal):
        return of_status(error.status, f"the endpoint answered {error}", error.retry_after, where)
    if isinstance(error, _NO_CREDENTIALS):
        return AuthenticationFailed(_words(str(error)), where=where, remedy=_RENEW)
    if isinstance(error, NoRegionError | InvalidRegionError):
        return LaunchRejected(_words(str(error)), where=where, remedy="set region of the cloud")
    if isinstance(error, ParamValidationError):
        # Its text may repeat what was sent.
        return LaunchRejected("a parameter has a value that EC2 cannot take", where=where)
    if isinstance(error, ResponseParserError):
        return CloudUnavailable("the answer is not EC2's, or was cut short", where=where)
    if isinstance(error, KeyError | IndexError | TypeError | ValueError | AttributeError):
        return CloudUnavailable(f"the answer makes no sense ({type(error).__name__}: {error})", where=where)
    kind = "" if isinstance(error, BotoCoreError) else f"{type(error).__name__}: "
    return CloudUnavailable(_words(f"{kind}{error}"), where=where)


def _of_answer(error: ClientError, where: str) -> CloudError:
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    words = _words(str(answer.get("Error", {}).get("Message", "")))
    metadata = answer.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    retry_after = str(metadata.get("HTTPHeaders", {}).get("retry-after", ""))
    what = f"{code}: {words}" if words else code
    if code in _THROTTLED:
        return Throttled(what, retry_after=wait_of(retry_after), where=where)
    found = _by_code(code, what, where)
    return found if found is not None else of_status(status, what, retry_after, where)


def _by_code(code: str, what: str, where: str) -> CloudError | None:
    makers: tuple[tuple[frozenset[str], Callable[[], CloudError]], ...] = (
        (_NO_CAPACITY, lambda: NoCapacity(what, where=where)),
        (frozenset({"UnauthorizedOperation"}), lambda: NotAuthorized(what, where=where, remedy=_POLICY)),
        (_AUTHENTICATION, lambda: AuthenticationFailed(what, where=where, remedy=_RENEW)),
        (_IMAGE, lambda: ImageNotFound(what, where=where)),
        (_MACHINE, lambda: MachineNotFound(what, where=where)),
        (frozenset({"IdempotentParameterMismatch"}), lambda: TokenUsed(what, where=where)),
        (_UNAVAILABLE, lambda: CloudUnavailable(what, where=where)),
    )
    for codes, make in makers:
        if code in codes:
            return make()
    if code in _QUOTAS or code.endswith("LimitExceeded"):
        scope = _QUOTAS.get(code, code.removesuffix("LimitExceeded").lower())
        return QuotaExceeded(what, scope=scope, where=where, remedy="ask for a higher quota, or set quota of the cloud")
    return None


def of_status(status: int, what: str, retry_after: str, where: str) -> CloudError:
    """What an HTTP status means when nothing else is known."""
    if status == 429:
        return Throttled(what, retry_after=wait_of(retry_after), where=where)
    if status in (401, 403):
        return AuthenticationFailed(what, where=where, remedy=_RENEW)
    if 400 <= status < 500 and status != 408:
        return LaunchRejected(what, where=where)
    return CloudUnavailable(what, where=where)


def _words(text: str) -> str:
    text = text.partition(" Encoded authorization failure message")[0]
    return text if len(text) <= _WORDS else text[:_WORDS] + "..."
