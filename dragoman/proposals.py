"""What is proposed to clients, in each dialect: what the configuration says, within a client's own limits."""

from __future__ import annotations

import socket
from dataclasses import replace

from broker.security.quotas import CHANNELS, Quota
from dragoman import __version__
from dragoman.config import Config
from protocols.amqp010 import opening as amqp010
from protocols.amqp091 import opening as amqp091
from protocols.amqp10 import opening as amqp10
from protocols.mqtt.opening import Settings as MqttSettings


class Proposals:
    """The settings of each front-end."""

    def __init__(self, config: Config) -> None:
        name, default_host = f"dragoman@{socket.gethostname()}", config.virtual_hosts[0]
        own091, own010, own10, mqtt = config.amqp091, config.amqp010, config.amqp10, config.mqtt
        self.amqp091 = amqp091.Settings(own091.frame_max, own091.channel_max, own091.heartbeat, __version__, name)
        self.amqp010 = amqp010.Settings(own010.frame_max, own010.channel_max, own010.heartbeat, own010.session_seconds,
                                        __version__, default_host)
        self.amqp10 = amqp10.Settings(own10.frame_max, own10.channel_max, own10.handle_max, own10.idle,
                                      own10.link_credit, own10.transaction_seconds, __version__, name, default_host)
        self.mqtt = MqttSettings(mqtt.packet_max, mqtt.receive_max, mqtt.topic_alias_max, mqtt.keep_alive_max,
                                 mqtt.session_seconds, mqtt.response_topics, mqtt.virtual_host or default_host)

    def fitted(self, config: Config, quota: Quota) -> Proposals:
        """For a client whose frames or packets, and channels, have limits of their own that are known before it logs
        in; these ones, if it has none."""
        channels = min((limit.counts[CHANNELS] for limit in quota.limits
                        if limit.per == "connection" and limit.refuses and CHANNELS in limit.counts), default=0)
        if not quota.frame_size and not channels:
            return self
        size, most = quota.frame_size or 1 << 62, channels or 1 << 62
        own091, own010, own10, mqtt = config.amqp091, config.amqp010, config.amqp10, config.mqtt
        return Proposals(replace(
            config,
            # of 0-9-1 it is the number of channels, of the others the highest one, from 0 on
            amqp091=replace(own091, frame_max=min(own091.frame_max, size), channel_max=min(own091.channel_max, most)),
            amqp010=replace(own010, frame_max=min(own010.frame_max, size),
                            channel_max=min(own010.channel_max, most - 1)),
            amqp10=replace(own10, frame_max=min(own10.frame_max, size), channel_max=min(own10.channel_max, most - 1)),
            mqtt=replace(mqtt, packet_max=min(mqtt.packet_max, size))))
