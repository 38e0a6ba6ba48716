"""What a client asks for when it connects (CONNECT, 3.1), and what it is told then (CONNACK, 3.2)."""

from __future__ import annotations

import secrets
from typing import Any, Final
from urllib.parse import quote

from protocols.mqtt.codec import (
    ASSIGNED_CLIENT_ID,
    AUTHENTICATION_DATA,
    AUTHENTICATION_METHOD,
    LONGEST,
    MAXIMUM_PACKET_SIZE,
    RECEIVE_MAXIMUM,
    REQUEST_PROBLEM_INFORMATION,
    REQUEST_RESPONSE_INFORMATION,
    RESPONSE_INFORMATION,
    SERVER_KEEP_ALIVE,
    SESSION_EXPIRY,
    TOPIC_ALIAS_MAXIMUM,
)
from protocols.mqtt.content import identity
from protocols.mqtt.errors import CLIENT_ID_NOT_VALID, MqttError, wrong
from protocols.mqtt.frames import CLEAN_START, HAS_WILL, V5, V31
from protocols.mqtt.publish import Will, make_will

FOREVER: Final = 0xFFFFFFFF
"""A session expiry interval that never ends."""

LARGEST_PACKET: Final = LONGEST + 5
"""The largest packet that can be: its remaining length with the fixed header, bytes."""

_PREFIX: Final = "dragoman-"


class Settings:
    """What the server allows. Sizes in bytes, times in seconds; 0 for keep_alive_max and session_seconds: any."""

    def __init__(self, packet_max: int, receive_max: int, topic_alias_max: int, keep_alive_max: int,
                 session_seconds: int, response_topics: str, default_host: str) -> None:
        self.packet_max = packet_max
        self.receive_max = receive_max
        self.topic_alias_max = topic_alias_max
        self.keep_alive_max = keep_alive_max
        self.session_seconds = session_seconds
        self.response_topics = response_topics
        self.default_host = default_host


class Connect:
    """A CONNECT packet's content. What only MQTT 5 can say is what it means in the others, that say nothing."""

    __slots__ = ("level", "flags", "client_id", "assigned", "clean_start", "session_expiry", "keep_alive",
                 "receive_maximum", "packet_maximum", "alias_maximum", "wants_response_information",
                 "problem_information", "method", "data", "has_user", "user", "password", "properties",
                 "will_topic", "will_payload", "will_properties")

    def __init__(self, found: dict[str, Any]) -> None:
        """found: as `read` of protocols/mqtt/frames.py gives it. Raises: MqttError."""
        self.level: int = found["level"]
        self.flags: int = found["flags"]
        self.client_id: str = found["client_id"]
        self.clean_start = self.flags & CLEAN_START != 0
        properties: dict[int, Any] = found.get("properties", {})
        self.properties = properties
        if self.level >= V5:
            self.session_expiry: int = properties.get(SESSION_EXPIRY, 0)
        else:
            self.session_expiry = 0 if self.clean_start else FOREVER
        self.keep_alive: int = found["keep_alive"]  # s
        self.receive_maximum: int = properties.get(RECEIVE_MAXIMUM, 65535)
        self.packet_maximum: int = properties.get(MAXIMUM_PACKET_SIZE, LARGEST_PACKET)
        self.alias_maximum: int = properties.get(TOPIC_ALIAS_MAXIMUM, 0)
        self.wants_response_information = properties.get(REQUEST_RESPONSE_INFORMATION, 0) == 1
        self.problem_information = properties.get(REQUEST_PROBLEM_INFORMATION, 1) == 1
        self.method: str | None = properties.get(AUTHENTICATION_METHOD)
        self.data: bytes | None = properties.get(AUTHENTICATION_DATA)
        if self.data is not None and self.method is None:
            raise wrong("CONNECT with authentication data, and no method")
        self.has_user = "user" in found or "password" in found
        self.user: str = found.get("user", "")
        self.password: bytes = found.get("password", b"")
        self.will_topic: str = found.get("will_topic", "")
        self.will_payload: bytes = found.get("will_payload", b"")
        self.will_properties: dict[int, Any] = found.get("will_properties", {})
        self.assigned = not self.client_id
        if self.assigned:
            if self.level == V31 or self.level < V5 and not self.clean_start:
                raise MqttError(CLIENT_ID_NOT_VALID, "an empty client identifier")
            self.client_id = _PREFIX + secrets.token_urlsafe(12)

    def will(self, user: str) -> Will | None:
        """The will, if there is one. Raises: MqttError."""
        if not self.flags & HAS_WILL:
            return None
        return make_will(self.flags, self.will_topic, self.will_properties, self.will_payload,
                         identity(self.client_id.encode(), user.encode("utf-8", "surrogatepass")))

    def limit(self, settings: Settings) -> None:
        """Bring down what the client asks for to what it may have."""
        most = settings.session_seconds
        if most and self.session_expiry > most:
            self.session_expiry = most
        most = settings.keep_alive_max
        if most and self.level >= V5 and not 0 < self.keep_alive <= most:
            self.keep_alive = most


def connack(connect: Connect, settings: Settings, asked_keep_alive: int, data: bytes) -> dict[int, Any]:
    """The properties of CONNACK for a client that is let in (3.2.2.3): what differs from what it would assume.

    asked_keep_alive: before `Connect.limit`; data: authentication data, or b"".
    """
    found: dict[int, Any] = {}
    asked: int = connect.properties.get(SESSION_EXPIRY, 0)
    if asked != connect.session_expiry:
        found[SESSION_EXPIRY] = connect.session_expiry
    if settings.receive_max < 65535:
        found[RECEIVE_MAXIMUM] = settings.receive_max
    if settings.packet_max < LARGEST_PACKET:
        found[MAXIMUM_PACKET_SIZE] = settings.packet_max
    if connect.assigned:
        found[ASSIGNED_CLIENT_ID] = connect.client_id
    if settings.topic_alias_max:
        found[TOPIC_ALIAS_MAXIMUM] = settings.topic_alias_max
    if asked_keep_alive != connect.keep_alive:
        found[SERVER_KEEP_ALIVE] = connect.keep_alive
    if connect.wants_response_information:
        found[RESPONSE_INFORMATION] = f"{settings.response_topics}/{quote(connect.client_id, safe='')}"
    if connect.method is not None:
        found[AUTHENTICATION_METHOD] = connect.method
        if data:
            found[AUTHENTICATION_DATA] = data
    return found
