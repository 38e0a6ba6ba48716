import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt3.Mqtt3BlockingClient;
import com.hivemq.client.mqtt.mqtt3.Mqtt3Client;
import com.hivemq.client.mqtt.MqttGlobalPublishFilter;
import com.hivemq.client.mqtt.mqtt5.Mqtt5BlockingClient;
import com.hivemq.client.mqtt.mqtt5.Mqtt5Client;
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5Publish;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/** HiveMQ's client, which assigns topic aliases and keeps to the receive maximum by itself. */
final class HiveMq extends Checks {
    /** Mosquitto 2.0.11 sends more than the receive maximum, and the client hangs up. */
    static final boolean PEER = "mosquitto".equals(System.getenv("DRAGOMAN_PEER"));

    static Mqtt5BlockingClient open() {
        Mqtt5BlockingClient client = Mqtt5Client.builder().identifier(name("h")).serverHost(BROKER.getHost())
                .serverPort(BROKER.getPort()).simpleAuth().username("guest").password(bytes("guest")).applySimpleAuth()
                .buildBlocking();
        client.connectWith().restrictions().sendTopicAliasMaximum(16).topicAliasMaximum(4)
                .receiveMaximum(PEER ? 1000 : 5).applyRestrictions().send();
        return client;
    }

    static void declare() {
        for (MqttQos qos : MqttQos.values()) {
            test("HiveMQ's client: many, " + qos, () -> many(qos));
        }
        test("HiveMQ's client: MQTT 3.1.1", HiveMq::old);
    }

    static void many(MqttQos qos) throws Exception {
        String topic = topicName();
        Mqtt5BlockingClient publisher = open();
        Mqtt5BlockingClient subscriber = open();
        try (Mqtt5BlockingClient.Mqtt5Publishes inbox = subscriber.publishes(MqttGlobalPublishFilter.ALL)) {
            subscriber.subscribeWith().topicFilter(topic + "/#").qos(qos).send();
            for (int number = 0; number < 200; number++) {
                publisher.publishWith().topic(topic + "/" + number % 7).qos(qos).payload(bytes("" + number))
                        .contentType("text/plain").userProperties().add("n", "" + number).applyUserProperties().send();
                // The client drops those of QoS 0 that nobody waits for.
                if (qos == MqttQos.AT_MOST_ONCE) expect(inbox, topic, qos, number);
            }
            if (qos != MqttQos.AT_MOST_ONCE) {
                for (int number = 0; number < 200; number++) expect(inbox, topic, qos, number);
            }
        } finally {
            publisher.disconnect();
            subscriber.disconnect();
        }
    }

    static void expect(Mqtt5BlockingClient.Mqtt5Publishes inbox, String topic, MqttQos qos, int number)
            throws Exception {
        Optional<Mqtt5Publish> got = inbox.receive(DEADLINE, TimeUnit.SECONDS);
        check(got.isPresent(), "no message " + number);
        equal(text(got.get().getPayloadAsBytes()), "" + number);
        equal(got.get().getTopic().toString(), topic + "/" + number % 7);
        equal(got.get().getQos(), qos);
        equal(got.get().getUserProperties().asList().get(0).getValue().toString(), "" + number);
    }

    static void old() throws Exception {
        String topic = topicName();
        Mqtt3BlockingClient client = Mqtt3Client.builder().identifier(name("h")).serverHost(BROKER.getHost())
                .serverPort(BROKER.getPort()).simpleAuth().username("guest").password(bytes("guest")).applySimpleAuth()
                .buildBlocking();
        client.connect();
        try (Mqtt3BlockingClient.Mqtt3Publishes inbox = client.publishes(MqttGlobalPublishFilter.ALL)) {
            client.subscribeWith().topicFilter(topic).qos(MqttQos.EXACTLY_ONCE).send();
            client.publishWith().topic(topic).qos(MqttQos.EXACTLY_ONCE).payload(LARGE).send();
            equal(inbox.receive(DEADLINE, TimeUnit.SECONDS).orElseThrow().getPayloadAsBytes(), LARGE);
        } finally {
            client.disconnect();
        }
    }
}
