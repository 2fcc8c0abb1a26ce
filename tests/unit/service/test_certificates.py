"""The site's authority and certificates."""

from __future__ import annotations

import datetime
import ssl
import stat
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gridtide.errors import SiteFileError
from gridtide.service import certificates
from gridtide.service.certificates import AUTHORITY_FILE, DAY, SERVER_FILE, ServerTls
from tests.unit.service.site import HandClock

NAMES = ("head.example.org", "192.0.2.10", "127.0.0.1", "::1")


class Certificates:
    """A site's certificates in a directory, at a time moved by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = HandClock()
        self.clock.time = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC).timestamp()

    def make(self, *names: str) -> ServerTls:
        return ServerTls.of_site(self.directory, site="torino", names=names or NAMES, clock=self.clock)

    def server(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.directory / SERVER_FILE).read_bytes())

    def authority(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.directory / AUTHORITY_FILE).read_bytes())


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "tls")


def test_the_authority_may_sign_servers_and_nothing_below_it(made: Certificates) -> None:
    tls = made.make()
    authority = made.authority()
    basic = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    extended = authority.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    assert list(extended.value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert (authority.not_valid_after_utc - authority.not_valid_before_utc).days == 3650
    key = authority.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert tls.authority is not None
    assert "PRIVATE" not in tls.authority
    assert x509.load_pem_x509_certificate(tls.authority.encode()) == authority


def test_the_server_certificate_is_for_the_names_and_signed_by_the_authority(made: Certificates) -> None:
    made.make()
    server = made.server()
    server.verify_directly_issued_by(made.authority())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["head.example.org"]
    assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.10", "127.0.0.1", "::1"]
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert server.not_valid_before_utc.timestamp() == made.clock.time - DAY


def test_keys_are_readable_by_the_owner_only(made: Certificates) -> None:
    made.make()
    assert sorted(path.name for path in made.directory.iterdir()) == [AUTHORITY_FILE, SERVER_FILE]
    for path in made.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("days", "renewed"), [(0, False), (365, False), (367, True), (500, True)])
def test_a_server_certificate_is_renewed_in_its_last_30_days(made: Certificates, days: int, renewed: bool) -> None:
    made.make()
    before, authority = made.server(), made.authority()
    made.clock.time += days * DAY - 0.5
    made.make()
    assert (made.server() != before) is renewed
    assert made.authority() == authority


def test_other_names_make_another_certificate_under_the_same_authority(made: Certificates) -> None:
    made.make()
    before, authority = made.server(), made.authority()
    made.make(*reversed(NAMES))
    assert made.server() == before, "the order of names does not matter"
    made.make("198.51.100.1")
    assert made.server() != before
    assert made.authority() == authority


def test_a_certificate_of_another_authority_is_replaced(made: Certificates) -> None:
    made.make()
    before = made.server()
    (made.directory / AUTHORITY_FILE).unlink()
    made.make()
    made.server().verify_directly_issued_by(made.authority())
    assert made.server() != before


def test_a_broken_authority_is_an_error_and_not_replaced(made: Certificates) -> None:
    made.make()
    (made.directory / AUTHORITY_FILE).write_bytes(b"rubbish")
    with pytest.raises(SiteFileError, match="restore"):
        made.make()
    assert (made.directory / AUTHORITY_FILE).read_bytes() == b"rubbish"


def test_a_broken_server_certificate_is_made_anew(made: Certificates) -> None:
    made.make()
    (made.directory / SERVER_FILE).write_bytes(b"rubbish")
    made.make()
    made.server().verify_directly_issued_by(made.authority())


def test_of_two_that_start_at_once_one_authority_stays(made: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Certificates(made.directory)
    real = certificates._make_authority
    raced = False

    def slow(site: str, now: float) -> bytes:
        nonlocal raced
        if not raced:
            raced = True
            other.make()
        return real(site, now)

    monkeypatch.setattr(certificates, "_make_authority", slow)
    tls = made.make()
    assert raced
    assert tls.authority is not None
    made.server().verify_directly_issued_by(x509.load_pem_x509_certificate(tls.authority.encode()))
    assert sorted(path.name for path in made.directory.iterdir()) == [AUTHORITY_FILE, SERVER_FILE]


def split(made: Certificates, name: str = "own") -> tuple[Path, Path]:
    """The server's pair as two files, as an administrator would have them."""
    pem = (made.directory / SERVER_FILE).read_text()
    at = pem.index("-----BEGIN PRIVATE")
    certificate, key = made.directory / f"{name}.crt", made.directory / f"{name}.key"
    certificate.write_text(pem[:at])
    key.write_text(pem[at:])
    return certificate, key


def own(made: Certificates, certificate: Path, key: Path, *names: str) -> ServerTls:
    return ServerTls.of_files(certificate, key, authority=None, names=names or NAMES, clock=made.clock)


def test_the_sites_own_certificate_is_taken_as_it_is(made: Certificates) -> None:
    authority = made.make().authority
    certificate, key = split(made)
    assert own(made, certificate, key).authority is None
    ca = made.directory / "ca.pem"
    ca.write_text(authority or "")
    assert ServerTls.of_files(certificate, key, authority=ca, names=NAMES, clock=made.clock).authority == authority


@pytest.mark.parametrize(("days", "says"), [(400, "ended on"), (-3, "begins on")])
def test_an_own_certificate_out_of_its_time_is_refused(made: Certificates, days: int, says: str) -> None:
    made.make()
    certificate, key = split(made)
    made.clock.time += days * DAY
    with pytest.raises(SiteFileError, match=says):
        own(made, certificate, key)


def test_an_own_certificate_for_other_names_is_refused(made: Certificates) -> None:
    made.make("head.example.org", "*.example.net")
    certificate, key = split(made)
    own(made, certificate, key, "head.example.org", "any.example.net")
    with pytest.raises(SiteFileError, match=r"not for a\.b\.example\.net"):
        own(made, certificate, key, "a.b.example.net")


def test_a_key_of_another_certificate_is_refused(made: Certificates) -> None:
    made.make()
    certificate, _ = split(made, "first")
    made.make("198.51.100.1")
    _, key = split(made, "second")
    with pytest.raises(SiteFileError, match="not the certificate's"):
        own(made, certificate, key)


@pytest.mark.parametrize("content", ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_rubbish_is_no_certificate(made: Certificates, content: str) -> None:
    made.make()
    certificate, key = split(made)
    certificate.write_text(content)
    with pytest.raises(SiteFileError, match="no certificate"):
        own(made, certificate, key)
    with pytest.raises(SiteFileError, match="cannot be read"):
        own(made, certificate.with_name("nowhere"), key)


def test_a_renewed_file_is_read_again_and_a_bad_one_is_not(made: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    made.make()
    certificate, key = split(made)
    tls = own(made, certificate, key)
    loaded: list[object] = []
    real = ssl.SSLContext.load_cert_chain

    def counted(self: ssl.SSLContext, *arguments: object, **keywords: object) -> None:
        real(self, *arguments, **keywords)  # type: ignore[arg-type]
        loaded.append(self)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", counted)
    tls.refresh()
    assert loaded == [], "nothing has changed"
    good = certificate.read_text()
    certificate.write_text("rubbish")
    with structlog.testing.capture_logs() as logs:
        tls.refresh()
    assert loaded == []
    assert "no certificate" in logs[0]["why"]
    certificate.write_text(good + "\n")
    tls.refresh()
    assert loaded[-1] is tls.context
