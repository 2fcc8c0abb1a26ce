"""What OpenNebula's refusals are taken for."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.clouds.opennebula_errors import Fault, Nonsense, Refused, WrongState, of_code, of_status, shortened, typed
from gridtide.clouds.refusals import Answered, MachineNotFound, NotAuthorized, PlainRefusal
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


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (0x0100, "User couldn't be authenticated, aborting call.", AuthenticationFailed),
        (0x0200, "User [3] : Not authorized to perform CREATE VM.", NotAuthorized),
        (0x0200, "User [3] : User Template includes a restricted attribute NIC/MAC.", NotAuthorized),
        (0x0400, "Error getting virtual machine [7].", MachineNotFound),
        (0x0400, "Error getting image [7].", ImageNotFound),
        (0x0800, "Could not terminate VM 7, wrong state PROLOG.", WrongState),
        (0x1000, "Incorrect filter_flag", LaunchRejected),
        (0x2000, "Cannot process request, no leader found", Answered),
        (0x4000, "Error allocating a new virtual machine. User 3 does not own an image with name: x", ImageNotFound),
        (0x4000, "Error allocating a new virtual machine. Image 7 is persistent and in use", ImageNotFound),
        (0x4000, "Error allocating a new virtual machine. Cannot get IP/MAC lease from virtual network 1.", NoCapacity),
        (0x4000, "Error allocating a new virtual machine. Not enough space in datastore", NoCapacity),
        (0x4000, "Error allocating a new virtual machine. MEMORY attribute must be positive", LaunchRejected),
        (0x8000, "The resource virtual machine template is locked. [5].", Answered),
        (0x10000, "Error replicating log entry 9.", CloudUnavailable),
        (0, "", CloudUnavailable),
        (77, "of a later version", CloudUnavailable),
    ],
)
def test_codes(code: int, words: str, kind: type[CloudError]) -> None:
    error = of_code(code, words, "private")
    assert type(error) is kind
    assert "private" in str(error)
    assert words in str(error)


@pytest.mark.parametrize(
    ("metric", "scope"),
    [
        ("VMS", "machines"),
        ("RUNNING_VMS", "machines"),
        ("CPU", "cores"),
        ("RUNNING_CPU", "cores"),
        ("MEMORY", "memory"),
        ("RUNNING_MEMORY", "memory"),
        ("SYSTEM_DISK_SIZE", "disk"),
        ("LEASES", "addresses"),
        ("PCI_DEV", "pci_dev"),
    ],
)
@pytest.mark.parametrize("code", [0x0200, 0x0800, 0x4000])
def test_quotas_have_their_scope(code: int, metric: str, scope: str) -> None:
    error = of_code(code, f"User [3] : group [100] limit of 12.5 reached for {metric} quota in VM.", "private")
    assert isinstance(error, QuotaExceeded)
    assert error.scope == scope


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, CloudUnavailable),
        (307, CloudUnavailable),
        (400, CloudUnavailable),
        (401, AuthenticationFailed),
        (403, AuthenticationFailed),
        (404, CloudUnavailable),
        (408, CloudUnavailable),
        (413, LaunchRejected),
        (429, Throttled),
        (500, Answered),
        (502, CloudUnavailable),
        (503, Answered),
        (504, CloudUnavailable),
    ],
)
def test_statuses(status: int, kind: type[CloudError]) -> None:
    assert type(of_status(status, "", "private")) is kind


def test_where_a_redirect_leads_is_for_the_administrator_to_write() -> None:
    assert "sent nowhere else" in of_status(302, "", "private").remedy


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Refused(0x0400, "Error getting virtual machine [7]."), MachineNotFound),
        (Fault(-506, "vmpool.infoset"), LaunchRejected),
        (Fault(-501, "vm.info"), LaunchRejected),
        (Fault(-504, "vm.info"), CloudUnavailable),
        (PlainRefusal(429, "3"), Throttled),
        (Nonsense("it is cut short"), CloudUnavailable),
        (httpx.ConnectError("refused"), CloudUnavailable),
        (httpx.InvalidURL("odd"), CloudUnavailable),
        (TimeoutError("too slow"), CloudUnavailable),
        (KeyError("ID"), CloudUnavailable),
        (NoCapacity("full"), NoCapacity),
    ],
)
def test_whatever_is_raised_becomes_one_of_ours(error: Exception, kind: type[CloudError]) -> None:
    assert type(typed(error, "private")) is kind


def test_a_method_that_is_not_there_is_named() -> None:
    assert "one.vmpool.infoset" in str(typed(Fault(-506, "vmpool.infoset"), "private"))


def test_what_was_parsed_is_not_repeated() -> None:
    assert "secret" not in str(typed(ValueError("invalid literal: 'secret'"), "private"))


def test_what_may_be_user_data_is_not_repeated() -> None:
    secret = "dGhlIGpvaW4gdG9rZW4gb2YgYSB3b3JrZXIgc3RhbmRzIGhlcmU="
    assert shortened(f"Cannot parse\n {secret} in template") == "Cannot parse ... in template"


@given(st.text())
def test_words_are_one_short_line(text: str) -> None:
    found = shortened(text)
    assert len(found) <= 303
    assert "\n" not in found


@given(st.integers(), st.text())
def test_any_code_becomes_an_error(code: int, words: str) -> None:
    assert isinstance(of_code(code, shortened(words), "private"), CloudError)
