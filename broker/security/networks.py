"""Where a client comes from, as files of access rules say it: networks and names of hosts."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Network, IPv6Network

from broker.security.expressions import Expression
from broker.security.rules import Condition, From, FromHost, Pattern

Networks = list[IPv4Network | IPv6Network]


def from_networks(text: str) -> Condition:
    """Networks with commas between them: `10.0.0.0/8`, `10.1.2.3`, `fe80::/10`, and `10.1.*` for `10.1.0.0/16`.

    Raises: ValueError.
    """
    return From([_network(each.strip()) for each in text.split(",")])


def from_hostnames(text: str) -> Condition:
    """Names with commas between them: regular expressions as in Broker-J, or `*.example.com`. Raises: ValueError."""
    patterns: list[Pattern] = []
    for each in text.split(","):
        name = each.strip().lower()
        if name.startswith("*"):  # which is no regular expression
            name = ".*" + name[1:].replace(".", "\\.")
        patterns.append(Expression(name, whole=True))
    return FromHost(patterns)


def from_addresses(text: str) -> Condition:
    """qpidd's `host=`: an address or the name of a host, whose addresses are looked up now; or a range of two with a
    comma between them; or `all`. Raises: ValueError."""
    if text == "all":
        return From([IPv4Network("0.0.0.0/0"), IPv6Network("::/0")])
    first, comma, last = text.partition(",")
    if not comma:
        return From([_network(address) for address in _addresses(first)])
    ends = [ipaddress.ip_address(_addresses(end)[0]) for end in (first, last)]
    if ends[0].version != ends[1].version or int(ends[0]) > int(ends[1]):
        raise ValueError(f"{text!r} is no range: the first address must not be above the second")
    return From(list(ipaddress.summarize_address_range(*ends)))


def _addresses(text: str) -> list[str]:
    try:
        return [str(ipaddress.ip_address(text.strip()))]
    except ValueError:
        pass
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(text.strip(), None)}
    except (OSError, UnicodeError):
        raise ValueError(f"{text!r} is no IP address, and no host of that name is found") from None
    return sorted(found)


def _network(text: str) -> IPv4Network | IPv6Network:
    if text.endswith("*"):
        parts = text.removesuffix("*").rstrip(".").split(".")
        try:
            return IPv4Network((".".join([*parts, *"0" * (4 - len(parts))][:4]) if parts != [""] else "0.0.0.0",
                                8 * len(parts) if parts != [""] else 0))
        except ValueError:
            raise ValueError(f"{text!r} is no network; write it as 10.1.0.0/16 or 10.1.*") from None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no network; write it as 10.1.0.0/16, fe80::/10 or 10.1.*") from None
