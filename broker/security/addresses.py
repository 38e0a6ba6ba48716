"""Addresses: who decides by them, and how they are written."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any


def written(host: str, port: int) -> str:
    """As in URLs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def plain_address(text: str) -> Any:
    """An IP address, one of IPv4 within IPv6 as the former; None when the text is none."""
    try:
        address: Any = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def source_of(text: str) -> str:
    """Those that are one source to us: an IPv4 address, and of IPv6 a network of 64 bits, which is what a single
    household has."""
    if ":" not in text:
        return text
    address = plain_address(text)
    if address is not None and address.version == 6:
        return str(ip_network((address, 64), strict=False))
    return text if address is None else str(address)


def is_loopback(text: str) -> bool:
    """Whether it is this machine's own loopback."""
    address = plain_address(text)
    return address is not None and bool(address.is_loopback)
