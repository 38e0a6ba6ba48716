"""Reason codes of MQTT 5 (2.4), and the error that carries one.

Clients of 3.1 and 3.1.1 are told nothing but a return code of CONNACK (3.2.2.3 there): `return_code` has it.
"""

from __future__ import annotations

from typing import Final

from broker.errors import LimitReached

SUCCESS: Final = 0x00
GRANTED_QOS_1: Final = 0x01
GRANTED_QOS_2: Final = 0x02
WITH_WILL: Final = 0x04
NO_MATCHING_SUBSCRIBERS: Final = 0x10
NO_SUBSCRIPTION_EXISTED: Final = 0x11
CONTINUE_AUTHENTICATION: Final = 0x18
RE_AUTHENTICATE: Final = 0x19
UNSPECIFIED: Final = 0x80
MALFORMED_PACKET: Final = 0x81
PROTOCOL_ERROR: Final = 0x82
IMPLEMENTATION_SPECIFIC: Final = 0x83
UNSUPPORTED_VERSION: Final = 0x84
CLIENT_ID_NOT_VALID: Final = 0x85
BAD_CREDENTIALS: Final = 0x86
NOT_AUTHORIZED: Final = 0x87
SERVER_UNAVAILABLE: Final = 0x88
SERVER_BUSY: Final = 0x89
BANNED: Final = 0x8A
SHUTTING_DOWN: Final = 0x8B
BAD_METHOD: Final = 0x8C
KEEP_ALIVE_TIMEOUT: Final = 0x8D
TAKEN_OVER: Final = 0x8E
TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
PACKET_ID_IN_USE: Final = 0x91
PACKET_ID_NOT_FOUND: Final = 0x92
RECEIVE_MAXIMUM_EXCEEDED: Final = 0x93
TOPIC_ALIAS_INVALID: Final = 0x94
PACKET_TOO_LARGE: Final = 0x95
RATE_TOO_HIGH: Final = 0x96
QUOTA_EXCEEDED: Final = 0x97
ADMINISTRATIVE_ACTION: Final = 0x98
PAYLOAD_FORMAT_INVALID: Final = 0x99
RETAIN_NOT_SUPPORTED: Final = 0x9A
QOS_NOT_SUPPORTED: Final = 0x9B
USE_ANOTHER_SERVER: Final = 0x9C
SERVER_MOVED: Final = 0x9D
SHARING_NOT_SUPPORTED: Final = 0x9E
CONNECTION_RATE_EXCEEDED: Final = 0x9F
MAXIMUM_CONNECT_TIME: Final = 0xA0
IDENTIFIERS_NOT_SUPPORTED: Final = 0xA1
WILDCARDS_NOT_SUPPORTED: Final = 0xA2

NAMES: Final = {
    SUCCESS: "Success", GRANTED_QOS_1: "Granted QoS 1", GRANTED_QOS_2: "Granted QoS 2",
    WITH_WILL: "Disconnect with Will Message", NO_MATCHING_SUBSCRIBERS: "No matching subscribers",
    NO_SUBSCRIPTION_EXISTED: "No subscription existed", CONTINUE_AUTHENTICATION: "Continue authentication",
    RE_AUTHENTICATE: "Re-authenticate", UNSPECIFIED: "Unspecified error", MALFORMED_PACKET: "Malformed Packet",
    PROTOCOL_ERROR: "Protocol Error", IMPLEMENTATION_SPECIFIC: "Implementation specific error",
    UNSUPPORTED_VERSION: "Unsupported Protocol Version", CLIENT_ID_NOT_VALID: "Client Identifier not valid",
    BAD_CREDENTIALS: "Bad User Name or Password", NOT_AUTHORIZED: "Not authorized",
    SERVER_UNAVAILABLE: "Server unavailable", SERVER_BUSY: "Server busy", BANNED: "Banned",
    SHUTTING_DOWN: "Server shutting down", BAD_METHOD: "Bad authentication method",
    KEEP_ALIVE_TIMEOUT: "Keep Alive timeout", TAKEN_OVER: "Session taken over",
    TOPIC_FILTER_INVALID: "Topic Filter invalid", TOPIC_NAME_INVALID: "Topic Name invalid",
    PACKET_ID_IN_USE: "Packet Identifier in use", PACKET_ID_NOT_FOUND: "Packet Identifier not found",
    RECEIVE_MAXIMUM_EXCEEDED: "Receive Maximum exceeded", TOPIC_ALIAS_INVALID: "Topic Alias invalid",
    PACKET_TOO_LARGE: "Packet too large", RATE_TOO_HIGH: "Message rate too high", QUOTA_EXCEEDED: "Quota exceeded",
    ADMINISTRATIVE_ACTION: "Administrative action", PAYLOAD_FORMAT_INVALID: "Payload format invalid",
    RETAIN_NOT_SUPPORTED: "Retain not supported", QOS_NOT_SUPPORTED: "QoS not supported",
    USE_ANOTHER_SERVER: "Use another server", SERVER_MOVED: "Server moved",
    SHARING_NOT_SUPPORTED: "Shared Subscriptions not supported",
    CONNECTION_RATE_EXCEEDED: "Connection rate exceeded", MAXIMUM_CONNECT_TIME: "Maximum connect time",
    IDENTIFIERS_NOT_SUPPORTED: "Subscription Identifiers not supported",
    WILDCARDS_NOT_SUPPORTED: "Wildcard Subscriptions not supported",
}
"""What the specification calls each."""

_RETURN_CODES: Final = {
    SUCCESS: 0, UNSUPPORTED_VERSION: 1, CLIENT_ID_NOT_VALID: 2, BAD_CREDENTIALS: 4, NOT_AUTHORIZED: 5, BANNED: 5,
    SERVER_UNAVAILABLE: 3, SERVER_BUSY: 3, SHUTTING_DOWN: 3, QUOTA_EXCEEDED: 3, CONNECTION_RATE_EXCEEDED: 3,
}


class MqttError(Exception):
    """What a client did wrong, or why it is refused. It costs the connection, unless who raises it says otherwise."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def malformed(text: str) -> MqttError:
    """A packet that cannot be read (1.2, Malformed Packet)."""
    return MqttError(MALFORMED_PACKET, text)


def wrong(text: str) -> MqttError:
    """A packet that can be read and makes no sense there (1.2, Protocol Error)."""
    return MqttError(PROTOCOL_ERROR, text)


def return_code(code: int) -> int:
    """What CONNACK of 3.1 and 3.1.1 says for a reason code; -1: there is none, the connection is just closed."""
    return _RETURN_CODES.get(code, -1)


def reason_of(error: Exception) -> int:
    """Why somebody cannot subscribe, as a reason code."""
    if isinstance(error, MqttError):
        return error.code
    return QUOTA_EXCEEDED if isinstance(error, LimitReached) else NOT_AUTHORIZED
