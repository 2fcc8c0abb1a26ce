"""TLS: the site's own authority, made at first start, or the site's own certificate.

The authority signs one server certificate and nothing else (no authority below it, servers only). It carries no name
constraints: a site's address may change while machines that trust its authority still run, and nobody but those
machines and the site's own clients trusts it. docs/explanation/security.md says what its key is worth to a thief.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import secrets
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gridtide.clock import Clock
from gridtide.errors import SiteFileError

_log = structlog.get_logger("gridtide.service")

DAY: Final = 86400.0
AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 397
"""Clients refuse server certificates of a longer life."""
RENEW_DAYS: Final = 30
"""A certificate with less left is replaced. Must be more than the longest time between two refreshes."""
BACKDATED: Final = DAY
"""Seconds before now from which a certificate counts, for machines whose clock is behind when they boot."""

AUTHORITY_FILE: Final = "authority.pem"
SERVER_FILE: Final = "server.pem"


class ServerTls:
    """What the server presents. ``context`` stays the same object when the certificate behind it is renewed."""

    def __init__(self, context: ssl.SSLContext, authority: str | None, refresher: _SiteFiles | _OwnFiles) -> None:
        self.context = context
        self.authority = authority
        """PEM of what a worker must trust; None when the authorities its system trusts will do."""
        self._refresher = refresher

    @classmethod
    def of_site(cls, directory: Path, *, site: str, names: Sequence[str], clock: Clock) -> ServerTls:
        """The site's own authority in ``directory``, made when there is none, and a certificate for ``names``."""
        files = _SiteFiles(directory, site, tuple(names), clock)
        authority = files.refresh()
        context = _context()
        context.load_cert_chain(directory / SERVER_FILE)
        return cls(context, authority, files)

    @classmethod
    def of_files(
        cls, certificate: Path, key: Path, *, authority: Path | None, names: Sequence[str], clock: Clock
    ) -> ServerTls:
        """The site's own certificate (its chain behind it). SiteFileError when it cannot serve these names now."""
        files = _OwnFiles(certificate, key, tuple(names), clock)
        files.check()
        context = _context()
        files.load(context)
        return cls(context, None if authority is None else _read(authority).decode("ascii", "replace"), files)

    def refresh(self) -> None:
        """Renew, or read again, what new connections are shown. A file that has become bad leaves all as it was."""
        try:
            self._refresher.renew(self.context)
        except (SiteFileError, OSError, ssl.SSLError) as error:
            _log.error("the certificate could not be renewed", why=str(error))


class _SiteFiles:
    """Authority and server certificate in the state directory, each with its key in one file of mode 0600."""

    def __init__(self, directory: Path, site: str, names: tuple[str, ...], clock: Clock) -> None:
        self._directory = directory
        self._site = site
        self._names = names
        self._clock = clock

    def refresh(self) -> str:
        """Make what is missing or nearly over. Returns the authority's certificate in PEM."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / AUTHORITY_FILE
        if not path.exists():
            # Two controllers may start at once: the one that comes second takes what the first has made.
            with contextlib.suppress(FileExistsError):
                _write_private(path, _make_authority(self._site, self._clock.now()), replace=False)
        authority, key = _load_pair(path)
        server = self._directory / SERVER_FILE
        if not self._serves(server, authority):
            _write_private(server, _make_server(authority, key, self._names, self._clock.now()), replace=True)
        return authority.public_bytes(serialization.Encoding.PEM).decode()

    def renew(self, context: ssl.SSLContext) -> None:
        self.refresh()
        context.load_cert_chain(self._directory / SERVER_FILE)

    def _serves(self, path: Path, authority: x509.Certificate) -> bool:
        if not path.exists():
            return False
        try:
            certificate, _ = _load_pair(path)
            certificate.verify_directly_issued_by(authority)
        except (SiteFileError, ValueError, TypeError, InvalidSignature):
            return False
        left = certificate.not_valid_after_utc.timestamp() - self._clock.now()
        return left > RENEW_DAYS * DAY and _names_of(certificate) == {_general_name(name) for name in self._names}


class _OwnFiles:
    """A certificate and key that somebody else renews."""

    def __init__(self, certificate: Path, key: Path, names: tuple[str, ...], clock: Clock) -> None:
        self._certificate = certificate
        self._key = key
        self._names = names
        self._clock = clock
        self._seen: tuple[float, float] | None = None

    def check(self) -> None:
        """SiteFileError when it is no certificate, is over or not yet valid, or is for other names."""
        where = str(self._certificate)
        try:
            certificate = x509.load_pem_x509_certificate(_read(self._certificate))
        except ValueError:
            raise SiteFileError("this is no certificate in PEM", where=where) from None
        now = self._clock.now()
        if certificate.not_valid_after_utc.timestamp() <= now:
            raise SiteFileError(
                f"the certificate ended on {certificate.not_valid_after_utc:%Y-%m-%d}", where=where, remedy="renew it"
            )
        if certificate.not_valid_before_utc.timestamp() > now:
            raise SiteFileError(f"the certificate begins on {certificate.not_valid_before_utc:%Y-%m-%d}", where=where)
        missing = [name for name in self._names if not _covers(certificate, name)]
        if missing:
            raise SiteFileError(
                f"the certificate is not for {missing[0]}", where=where, remedy="list the names it is for, or renew it"
            )
        if certificate.not_valid_after_utc.timestamp() - now < RENEW_DAYS * DAY:
            _log.warning("the certificate ends soon", file=where, ends=f"{certificate.not_valid_after_utc:%Y-%m-%d}")

    def load(self, context: ssl.SSLContext) -> None:
        """SiteFileError when certificate and key do not belong together."""
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (ssl.SSLError, ValueError):
            raise SiteFileError(
                "this key is not the certificate's, or is encrypted",
                where=str(self._key),
                remedy="give an open key file",
            ) from None
        except OSError as error:
            raise SiteFileError(f"cannot be read: {error.strerror}", where=str(self._key)) from None
        self._seen = self._stamp()

    def renew(self, context: ssl.SSLContext) -> None:
        if self._stamp() != self._seen:
            self.check()
            # Tried on another context first: a half-written pair must not break the one in use.
            self.load(_context())
            self.load(context)

    def _stamp(self) -> tuple[float, float]:
        return (self._certificate.stat().st_mtime, self._key.stat().st_mtime)


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SiteFileError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _write_private(path: Path, data: bytes, *, replace: bool) -> None:
    """Write whole or not at all, readable by the owner only. FileExistsError unless ``replace``."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _load_pair(path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    data = _read(path)
    try:
        certificate = x509.load_pem_x509_certificate(data)
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        raise SiteFileError(
            "this file does not hold a certificate and its key",
            where=str(path),
            remedy="restore it; removing it makes a new one, which machines that run already do not trust",
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise SiteFileError("certificate and key do not belong together", where=str(path), remedy="restore the file")
    return certificate, key


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.lower())


def _names_of(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _covers(certificate: x509.Certificate, name: str) -> bool:
    names = _names_of(certificate)
    wanted = _general_name(name)
    wild = x509.DNSName("*." + name.lower().partition(".")[2]) if isinstance(wanted, x509.DNSName) else None
    return wanted in names or (wild is not None and wild in names)


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(now: float, days: int, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    start = datetime.datetime.fromtimestamp(now - BACKDATED, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .public_key(key.public_key())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _make_authority(site: str, now: float) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Gridtide site {site}"[:64])])
    certificate = (
        _builder(now, AUTHORITY_DAYS, key)
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate, key)


def _make_server(
    authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, names: Sequence[str], now: float
) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _builder(now, SERVER_DAYS, key)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(authority.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return _pem(certificate, key)
