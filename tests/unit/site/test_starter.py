"""What ``gridtide init`` writes works as it is."""

from __future__ import annotations

import pytest

from gridtide.errors import SiteFileError
from gridtide.site.loader import problems
from gridtide.site.starter import starter

from .conftest import Read, Write


@pytest.mark.parametrize("name", ["torino", "t", "a-b-3", "x" * 20])
def test_it_loads(read: Read, name: str) -> None:
    site = read(starter(name))
    rules = site.rules()
    assert rules.name == name
    assert (list(rules.queues), list(rules.clouds), list(rules.groups)) == (["jobs"], ["local"], ["workers"])


def test_what_is_commented_out_is_right_too(write: Write) -> None:
    text = starter("torino").replace("# state", "state").replace("# url", "url")
    assert problems(write(text)) == []
    assert text.count("state = ") == 1


@pytest.mark.parametrize("name", ["", "Torino", "x" * 21, 'a"b', "-a", "a-", "3a", "a\nb", "$name", "a.b"])
def test_a_name_that_cannot_be_one(name: str) -> None:
    with pytest.raises(SiteFileError, match="cannot be a name") as caught:
        starter(name)
    assert "\n" not in str(caught.value)
