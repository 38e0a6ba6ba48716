import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.eclipse.paho.client.mqttv3.IMqttDeliveryToken;
import org.eclipse.paho.client.mqttv3.MqttCallback;
import org.eclipse.paho.client.mqttv3.MqttClient;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.MqttException;
import org.eclipse.paho.client.mqttv3.MqttMessage;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/** Eclipse Paho's client for MQTT 3.1 and 3.1.1. */
final class Paho3 extends Checks {
    /** A client whose messages wait in a queue. */
    static final class Client implements MqttCallback, AutoCloseable {
        final BlockingQueue<MqttMessage> inbox = new LinkedBlockingQueue<>();
        final CountDownLatch lost = new CountDownLatch(1);
        final MqttConnectOptions options = new MqttConnectOptions();
        final MqttClient paho;

        Client(String name, int version, boolean clean) throws MqttException {
            paho = new MqttClient(TCP, name, new MemoryPersistence());
            paho.setTimeToWait(DEADLINE * 1000);
            paho.setCallback(this);
            options.setMqttVersion(version);
            options.setCleanSession(clean);
            options.setMaxInflight(1000);
            options.setUserName("guest");
            options.setPassword("guest".toCharArray());
        }

        Client connect() throws MqttException {
            paho.connect(options);
            return this;
        }

        void publish(String topic, String payload, int qos, boolean retain) throws MqttException {
            paho.publish(topic, bytes(payload), qos, retain);
        }

        String payload() throws InterruptedException {
            return text(next("a message", inbox).getPayload());
        }

        @Override
        public void connectionLost(Throwable cause) {
            lost.countDown();
        }

        @Override
        public void messageArrived(String topic, MqttMessage message) {
            inbox.add(message);
        }

        @Override
        public void deliveryComplete(IMqttDeliveryToken token) {
            // publish has waited for it
        }

        @Override
        public void close() throws MqttException {
            if (paho.isConnected()) paho.disconnect();
            paho.close();
        }
    }

    static Client open(int version) throws MqttException {
        return new Client(name("c"), version, true).connect();
    }

    static void declare() {
        for (int version : new int[] {MqttConnectOptions.MQTT_VERSION_3_1, MqttConnectOptions.MQTT_VERSION_3_1_1}) {
            String of = "MQTT 3 (" + version + "): ";
            test(of + "every quality of service", () -> qualities(version));
            test(of + "a large payload", () -> large(version));
            test(of + "retained messages", () -> retained(version));
            test(of + "a session waits", () -> session(version));
            test(of + "one client of a name", () -> takeOver(version));
            test(of + "a will, when another takes over", () -> will(version));
            test(of + "a wrong password", () -> refused(version));
        }
    }

    static void qualities(int version) throws Exception {
        String topic = topicName();
        try (Client publisher = open(version); Client subscriber = open(version)) {
            for (int published = 0; published < 3; published++) {
                for (int subscribed = 0; subscribed < 3; subscribed++) {
                    subscriber.paho.subscribe(topic, subscribed);
                    publisher.publish(topic, "m", published, false);
                    equal(next("m", subscriber.inbox).getQos(), Math.min(published, subscribed));
                }
            }
            for (int number = 0; number < 200; number++) publisher.publish(topic, "" + number, 2, false);
            for (int number = 0; number < 200; number++) equal(subscriber.payload(), "" + number);
        }
    }

    static void large(int version) throws Exception {
        String topic = topicName();
        try (Client client = open(version)) {
            client.paho.subscribe(topic, 2);
            client.paho.publish(topic, LARGE, 2, false);
            equal(next("the large one", client.inbox).getPayload(), LARGE);
        }
    }

    static void retained(int version) throws Exception {
        String topic = topicName();
        try (Client publisher = open(version); Client subscriber = open(version)) {
            publisher.publish(topic, "old", 1, true);
            publisher.publish(topic, "new", 1, true);
            subscriber.paho.subscribe(topic, 1);
            MqttMessage got = next("the retained one", subscriber.inbox);
            equal(text(got.getPayload()), "new");
            check(got.isRetained(), "not marked as retained");
            publisher.publish(topic, "", 1, true);
            check(!next("the empty one", subscriber.inbox).isRetained(), "marked as retained");
        }
    }

    static void session(int version) throws Exception {
        String topic = topicName();
        try (Client publisher = open(version); Client subscriber = new Client(name("c"), version, false)) {
            subscriber.connect();
            subscriber.paho.subscribe(topic, 2);
            subscriber.paho.disconnect();
            for (int number = 0; number < 5; number++) publisher.publish(topic, "" + number, 2, false);
            subscriber.connect();
            List<String> found = new ArrayList<>();
            while (found.size() < 5) found.add(subscriber.payload());
            equal(found, List.of("0", "1", "2", "3", "4"));
        }
    }

    static void takeOver(int version) throws Exception {
        String name = name("c");
        try (Client first = new Client(name, version, true).connect();
                Client second = new Client(name, version, true).connect()) {
            check(first.lost.await(DEADLINE, TimeUnit.SECONDS), "the first one is still connected");
            check(second.paho.isConnected(), "the second one is not connected");
        }
    }

    static void will(int version) throws Exception {
        String topic = topicName();
        String name = name("c");
        try (Client watcher = open(version); Client first = new Client(name, version, true)) {
            watcher.paho.subscribe(topic, 1);
            first.options.setWill(topic, bytes("gone"), 1, false);
            first.connect();
            try (Client second = new Client(name, version, true).connect()) {
                equal(watcher.payload(), "gone");
            }
        }
    }

    static void refused(int version) throws Exception {
        try (Client client = new Client(name("c"), version, true)) {
            client.options.setPassword("wrong".toCharArray());
            try {
                client.connect();
            } catch (MqttException error) {
                check(error.getReasonCode() == 4 || error.getReasonCode() == 5, "refused with " + error);
                return;
            }
            throw new AssertionError("it was let in");
        }
    }
}
