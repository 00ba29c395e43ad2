"""Options of SSH links."""

from __future__ import annotations

from typing import Any

import pytest

from asim.errors import ConfigError
from asim.transport.options import SSHOptions


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"port": 0}, "ssh.port = 0: must be from 1 to 65535"),
        ({"port": 65536}, "ssh.port = 65536"),
        ({"connect_timeout": 0}, "ssh.connect_timeout = 0: must be 0.1 seconds or more"),
        ({"keepalive": -1}, "ssh.keepalive = -1"),
        ({"link_patience": float("nan")}, "ssh.link_patience = nan"),
        ({"cache": "here"}, "ssh.cache = 'here': must be absolute, or begin with ~/"),
        ({"fetch": "all"}, 'ssh.fetch = \'all\': must be "end", "never" or a sequence of patterns'),
    ],
)
def test_options_that_cannot_work(bad: dict[str, Any], words: str) -> None:
    """What can never work is refused with its name, its value and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        SSHOptions(**bad)
    assert words in str(caught.value)


def test_one_or_several() -> None:
    """A single path or host may be given as text; jumps also as OpenSSH writes them."""
    options = SSHOptions(config="c", known_hosts=["a", "b"], identity_files="i", jump="x@a,b:7", fetch=["*.out"])
    assert (options.config, options.known_hosts, options.identity_files) == (("c",), ("a", "b"), ("i",))
    assert options.jumps == ("x@a", "b:7") and options.fetch == ("*.out",)
    assert SSHOptions(jump=("a", "b")).jumps == ("a", "b") and SSHOptions().jumps == ()


def test_options_can_be_compared_and_kept() -> None:
    """Two that say the same are equal, and may be keys."""
    assert len({SSHOptions(config=["a"]), SSHOptions(config=("a",)), SSHOptions()}) == 2
