"""Telling systemd, or whoever else set NOTIFY_SOCKET, how we are: sd_notify(3) without its library."""

from __future__ import annotations

import os
import socket
import time


def notify(*lines: str) -> None:
    """Send lines such as `READY=1`; nothing happens without a NOTIFY_SOCKET, or when nobody listens there."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address[0] == "@":
        address = "\0" + address[1:]  # Linux's abstract names
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        try:
            out.sendto("\n".join(lines).encode(), address)
        except OSError:
            pass  # nobody is there to be told, and that is no reason to stop


def reloading() -> None:
    """Before a reload (Type=notify-reload wants the time of it); `READY=1` follows when it is over."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval() -> float:
    """Seconds between two `WATCHDOG=1`: half of what we are allowed; 0 when nobody asked for them."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    allowed = os.environ.get("WATCHDOG_USEC", "")
    return int(allowed) / 2e6 if allowed.isascii() and allowed.isdigit() else 0.0
