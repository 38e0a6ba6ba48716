"""paho-mqtt in the matrix, as a client of MQTT 5 and as one of 3.1.1, which has payloads and nothing else.

What is for a queue is published to its topic, `$queue/NAME`; what such a client reads is in the queue of its session.
"""

from __future__ import annotations

import uuid
from typing import Any

from paho.mqtt.client import MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.conformance.matrix.notation import Side
from tests.conformance.mqtt_tools import Device

TEXTS = {"content-type": "ContentType", "response-topic": "ResponseTopic"}
NUMBERS = {"payload-format": "PayloadFormatIndicator", "message-expiry": "MessageExpiryInterval"}


class Address:
    """Where a device connects to."""

    def __init__(self, url: str) -> None:
        self.host, _, port = url.rpartition("@")[2].partition("/")[0].partition(":")
        self.port = int(port)


class Paho:
    name = "paho"
    dialect = "mqtt"
    version = MQTTv5

    def __init__(self, url: str) -> None:
        self.client_id = f"matrix-{uuid.uuid4().hex[:8]}"
        self.device = Device(Address(url), self.client_id, version=self.version)
        self.device.subscribe(f"matrix/{self.client_id}", 2)
        self.queue = f"mqtt-session:{self.client_id}"

    def close(self) -> None:
        self.device.close()

    @staticmethod
    def can_send(side: Side) -> bool:
        """It says what MQTT can say, but not who it is."""
        return "x-user-id" not in dict(side.get("user-properties", ())) and "0" <= side["qos"][1] <= "2"

    @staticmethod
    def can_read(side: Side) -> bool:
        return True

    def send(self, queue: str, sides: list[Side]) -> None:
        topic = "$queue/" + queue.replace("%", "%25")
        for side in sides:
            info = self.device.paho.publish(topic, bytes.fromhex(side["body"][1]), int(side["qos"][1]), False,
                                            self._properties(side))
            assert info.rc == 0
        self.device.publish("matrix/end", b"", 1)

    def read(self, queue: str, count: int) -> list[tuple[Side | None, MQTTMessage | None]]:
        return [self._shown(self.device.next()) for _ in range(count)]

    def same(self, shown: Any, side: Side) -> bool:
        raise NotImplementedError

    def _properties(self, side: Side) -> Properties | None:
        found = Properties(PacketTypes.PUBLISH)
        for name, attribute in TEXTS.items():
            if name in side:
                setattr(found, attribute, bytes.fromhex(side[name][1]).decode())
        for name, attribute in NUMBERS.items():
            if name in side:
                setattr(found, attribute, int(side[name][1]))
        if "correlation-data" in side:
            found.CorrelationData = bytes.fromhex(side["correlation-data"][1])
        if "user-properties" in side:
            found.UserProperty = side["user-properties"]
        return found

    def _shown(self, message: MQTTMessage) -> tuple[Side | None, MQTTMessage | None]:
        side: Side = {"body": ["bytes", message.payload.hex()], "qos": ["number", str(message.qos)]}
        found = message.properties
        assert found is not None
        for name, attribute in TEXTS.items():
            if hasattr(found, attribute):
                side[name] = ["bytes", getattr(found, attribute).encode().hex()]
        for name, attribute in NUMBERS.items():
            if hasattr(found, attribute):
                side[name] = ["number", str(getattr(found, attribute))]
        if hasattr(found, "CorrelationData"):
            side["correlation-data"] = ["bytes", found.CorrelationData.hex()]
        if hasattr(found, "UserProperty"):
            side["user-properties"] = list(found.UserProperty)
        return side, None


class Paho311(Paho):
    name = "paho-3.1.1"
    version = MQTTv311

    @staticmethod
    def can_send(side: Side) -> bool:
        return set(side) == {"body", "qos"}

    def same(self, shown: MQTTMessage, side: Side) -> bool:
        """All that it sees of what this side says."""
        return shown.payload.hex() == side["body"][1] and str(shown.qos) == side["qos"][1]

    def _properties(self, side: Side) -> None:
        return None

    def _shown(self, message: MQTTMessage) -> tuple[None, MQTTMessage]:
        return None, message
