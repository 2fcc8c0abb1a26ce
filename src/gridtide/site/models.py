"""The sections of the site file as strict, frozen models. What holds between keys is in ``checks.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)

from gridtide.site.base import (
    RESTART,
    AttributeKey,
    AttributeValue,
    Count,
    Directory,
    File,
    Price,
    SiteModel,
    SiteName,
    Text,
    is_loopback,
    written,
)
from gridtide.site.context import GroupContextSettings
from gridtide.site.database_url import DEFAULT_URL, connection_url, read_database_url
from gridtide.site.policies import AnyPolicy
from gridtide.site.units import Duration, Moment, Period, parse_duration, wrong


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on. Port 0: one that the kernel chooses."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: object) -> Self:
        """``HOST:PORT`` or ``[IPV6]:PORT``. PydanticCustomError otherwise."""
        if not isinstance(text, str):
            raise wrong("must be text", 'HOST:PORT, for example "127.0.0.1:8470"')
        host, colon, port = text.strip().rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if not colon or not host or " " in host or (":" in host) != bracketed:
            raise wrong(f"{text[:60]!r} is not an address to listen on", 'HOST:PORT, for example "127.0.0.1:8470"')
        if not (port.isascii() and port.isdigit() and int(port[:6]) < 65_536):
            raise wrong(f"{port[:20]!r} is not a port", "0 to 65535; 0 lets the kernel choose")
        return cls(host, int(port))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def everywhere(self) -> bool:
        """Whether it means every address of the machine, which is no address that one could call."""
        return self.host in {"0.0.0.0", "::"}  # noqa: S104  (recognised, not used)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or parts.username is not None or parts.query or parts.fragment or " " in url:
        raise wrong("is not an address that workers could call", 'for example "https://site.example.org:8470"')
    return url.rstrip("/")


class CertificateFiles(SiteModel):
    """A certificate of the site's own."""

    certificate: File = Field(description="PEM file with the certificate and those between it and its authority.")
    key: File = Field(description="PEM file with the private key.")
    authority: File = Field(description="PEM file of the authority that signed it: the only one that workers trust.")


def _tls(value: object, information: ValidationInfo) -> object:
    if isinstance(value, dict):
        return CertificateFiles.model_validate(value, context=information.context)
    if isinstance(value, CertificateFiles) or value in ("auto", "off"):
        return value
    raise wrong(
        "is not a way to use TLS", '"auto", "off" or { certificate = "FILE", key = "FILE", authority = "FILE" }'
    )


class AliEC2Settings(SiteModel):
    """The life-cycle routes that existing AliEC2 contextualisation scripts call."""

    group: Text = Field(description="The group whose workers are spawned through these routes.")


class SiteSettings(SiteModel):
    """``[site]``"""

    name: SiteName = Field(
        description="Name of the site, part of the tag of its machines: a letter, then letters, digits and hyphens in "
        "lower case, at most 20 characters.",
        json_schema_extra=RESTART,
    )
    state: Directory = written(
        "state",
        description="Directory for all that the site keeps. Relative to the site file.",
        restart=True,
    )


class ServiceSettings(SiteModel):
    """``[service]``: the HTTP service that workers and users call."""

    listen: Annotated[
        Listen,
        BeforeValidator(lambda value: value if isinstance(value, Listen) else Listen.parse(value)),
        WithJsonSchema({"type": "string", "pattern": r"^.+:[0-9]{1,5}$"}),
    ] = written(
        "127.0.0.1:8470",
        description="Address and port to listen on. Port 0: the kernel chooses, and the same port is taken again at a "
        "restart, if it is free.",
        restart=True,
    )
    url: Annotated[str, Field(min_length=1), AfterValidator(_check_url)] | None = written(
        None, description="What workers and users call. Left out: made from `listen`."
    )
    tls: Annotated[
        Literal["auto", "off"] | CertificateFiles,
        PlainValidator(_tls, json_schema_input_type=Literal["auto", "off"] | CertificateFiles),
    ] = written(
        "auto",
        description='"auto": plain HTTP on loopback, otherwise TLS by the site\'s own authority. "off" is for loopback '
        "only. A table names the site's own certificate.",
        restart=True,
    )
    aliec2: AliEC2Settings | None = written(
        None, description="Switches the AliEC2-compatible routes on. Left out: they are off."
    )

    @property
    def encrypted(self) -> bool:
        """Whether the service itself speaks TLS."""
        return isinstance(self.tls, CertificateFiles) or (self.tls == "auto" and not self.listen.loopback)

    def url_on(self, port: int) -> str:
        """What workers and users call when the service listens on this port (which the kernel may have chosen)."""
        if self.url is not None:
            return self.url
        return f"{'https' if self.encrypted else 'http'}://{Listen(self.listen.host, port)}"


class StoreSettings(SiteModel):
    """``[store]``"""

    url: Annotated[SecretStr, BeforeValidator(read_database_url), WithJsonSchema({"type": "string"})] = written(
        DEFAULT_URL,
        description="Database, as SQLAlchemy writes it: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME. "
        "Never shown.",
        restart=True,
    )
    password_file: File | None = written(
        None,
        description="File that holds the database's password alone, so that the site file need not.",
        restart=True,
    )

    def connection_url(self) -> str:
        """The URL with its password, for the engine alone. SiteFileError when the password cannot be read."""
        return connection_url(self.url.get_secret_value(), self.password_file)


class ControllerSettings(SiteModel):
    """``[controller]``: its rhythm. The defaults suit sites up to thousands of workers."""

    batch_window: Duration = written("50 ms", description="Events within this time are looked at together.")
    queue_refresh: Period = written("5 s", description="A queue is read at least so often.")
    cloud_refresh: Period = written("10 s", description="A cloud is read at least so often.")
    queue_deadline: Period = written("10 s", description="A queue that takes longer to answer has failed.")
    cloud_deadline: Period = written("20 s", description="A cloud that takes longer to answer has failed.")
    launch_deadline: Period = written(
        "60 s", description="A launch call that takes longer counts as lost; its machine is looked for by tag."
    )
    lease: Period = written(
        "10 s", description="A controller that is silent for so long may be replaced by another one."
    )
    warmup: Duration = written(
        "60 s", description="After a start, how long a group waits for the first answer of each of its clouds."
    )


def _deadline(value: object) -> object:
    if value is None or value == "auto":
        return None
    seconds = parse_duration(value)
    if seconds < 1.0:
        raise wrong("is too short", '"auto", or at least "1 s"')
    return seconds


_DEADLINE_SCHEMA: Final = WithJsonSchema({"type": "string"})


class GroupSettings(SiteModel):
    """``[groups.NAME]``: workers of one kind."""

    queue: Text = Field(description="The queue that its workers serve.")
    clouds: tuple[Text, ...] = Field(
        min_length=1,
        description="Where its machines come from, in order: the next one when the first is full, broken or too dear.",
    )
    shapes: tuple[Text, ...] = written(
        (), description="Names of the shapes to use, in order of preference. Empty: every shape of the clouds."
    )
    choose: Literal["order", "price", "fill"] = written(
        "order",
        description='Which machine is taken for a job. "order": of the first cloud that has room. "price": of all '
        'clouds, what costs least for each core that jobs get. "fill": of all clouds, what leaves least unused, then '
        "the cheaper.",
    )
    price_limit: Price | None = written(
        None, description="Highest price for a core and hour: dearer machines are not launched. Left out: any price."
    )
    image: Text | None = written(None, description="The image to boot, for clouds that have images.")
    minimum: Count = written(0, description="Never fewer workers than this.")
    maximum: Count = Field(description="Never more machines than this, whatever state they are in.")
    share: Annotated[float, Field(gt=0.0, le=1000.0, allow_inf_nan=False)] = written(
        1.0,
        description="Its weight beside other groups where a cloud's quota does not hold what all of them want: with 2 "
        "it may use twice as much as a group with 1.",
    )
    policy: AnyPolicy = written({"type": "tide"}, description="How many workers there should be.")
    join_deadline: Annotated[float | None, BeforeValidator(_deadline), _DEADLINE_SCHEMA] = written(
        "auto",
        description='A worker that has not joined by then is given up. "auto": three times as long as machines usually '
        "take, 10 minutes until that is known.",
    )
    lease: Period = written(
        "10 min",
        description="A worker without contact for so long drains itself; its running job ends in peace.",
    )
    heartbeat: Moment = written("10 s", description="How often a worker reports. At most half of its lease.")
    attributes: Mapping[AttributeKey, AttributeValue] = written(
        {}, description="What its workers advertise to the queue, for jobs' requirements."
    )
    context: GroupContextSettings = written({}, description="What its machines are told at boot.")
