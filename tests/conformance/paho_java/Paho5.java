import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.logging.LogManager;
import org.eclipse.paho.mqttv5.client.IMqttToken;
import org.eclipse.paho.mqttv5.client.MqttCallback;
import org.eclipse.paho.mqttv5.client.MqttClient;
import org.eclipse.paho.mqttv5.client.MqttConnectionOptions;
import org.eclipse.paho.mqttv5.client.MqttDisconnectResponse;
import org.eclipse.paho.mqttv5.client.persist.MemoryPersistence;
import org.eclipse.paho.mqttv5.common.MqttException;
import org.eclipse.paho.mqttv5.common.MqttMessage;
import org.eclipse.paho.mqttv5.common.MqttSubscription;
import org.eclipse.paho.mqttv5.common.packet.MqttProperties;
import org.eclipse.paho.mqttv5.common.packet.UserProperty;

/** Eclipse Paho's client for MQTT 5; its `main` runs the tests of the other clients, too. */
final class Paho5 extends Checks {
    /** A client whose messages wait in a queue. */
    static final class Client implements MqttCallback, AutoCloseable {
        final BlockingQueue<MqttMessage> inbox = new LinkedBlockingQueue<>();
        final CompletableFuture<Integer> ended = new CompletableFuture<>(); // with the reason code
        final MqttConnectionOptions options = new MqttConnectionOptions();
        final MqttClient paho;
        IMqttToken connack;

        Client(String name) throws MqttException {
            paho = new MqttClient(TCP, name, new MemoryPersistence());
            paho.setTimeToWait(DEADLINE * 1000);
            paho.setCallback(this);
            options.setUserName("guest");
            options.setPassword(bytes("guest"));
        }

        Client kept() {
            options.setCleanStart(false);
            options.setSessionExpiryInterval(3600L);
            return this;
        }

        Client connect() throws MqttException {
            connack = paho.connectWithResult(options);
            return this;
        }

        void publish(String topic, String payload, int qos, boolean retain) throws MqttException {
            paho.publish(topic, bytes(payload), qos, retain);
        }

        String payload() throws InterruptedException {
            return text(next("a message", inbox).getPayload());
        }

        @Override
        public void disconnected(MqttDisconnectResponse response) {
            ended.complete(response.getReturnCode());
        }

        @Override
        public void mqttErrorOccurred(MqttException error) {
            // `disconnected` is called as well
        }

        @Override
        public void messageArrived(String topic, MqttMessage message) {
            inbox.add(message);
        }

        @Override
        public void deliveryComplete(IMqttToken token) {
            // publish has waited for it
        }

        @Override
        public void connectComplete(boolean reconnect, String address) {
            // connect has waited for it
        }

        @Override
        public void authPacketArrived(int reason, MqttProperties properties) {
            // nobody asked for it
        }

        @Override
        public void close() throws MqttException {
            if (paho.isConnected()) paho.disconnect();
            paho.close();
        }
    }

    public static void main(String[] arguments) {
        LogManager.getLogManager().reset(); // Paho tells of each packet
        declare();
        Paho3.declare();
        HiveMq.declare();
        System.exit(runAll());
    }

    static Client open() throws MqttException {
        return new Client(name("c")).connect();
    }

    static void declare() {
        test("MQTT 5: every quality of service", Paho5::qualities);
        test("MQTT 5: properties", Paho5::properties);
        test("MQTT 5: a large payload", Paho5::large);
        test("MQTT 5: a session waits", Paho5::session);
        test("MQTT 5: subscription options", Paho5::subscriptionOptions);
        test("MQTT 5: a shared subscription", Paho5::shared);
        test("MQTT 5: topic aliases", Paho5::aliases);
        test("MQTT 5: take-over", Paho5::takeOver);
        test("MQTT 5: a wrong password", Paho5::refused);
        test("MQTT 5: request and response", Paho5::request);
    }

    static void qualities() throws Exception {
        String topic = topicName();
        try (Client publisher = open(); Client subscriber = open()) {
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

    static MqttMessage message(String payload, MqttProperties properties) {
        MqttMessage made = new MqttMessage(bytes(payload));
        made.setQos(1);
        made.setProperties(properties);
        return made;
    }

    static void properties() throws Exception {
        String topic = topicName();
        try (Client client = open()) {
            client.paho.subscribe(topic, 1);
            MqttProperties said = new MqttProperties();
            said.setContentType("text/plain");
            said.setPayloadFormat(true);
            said.setMessageExpiryInterval(100L);
            said.setResponseTopic("a/b");
            said.setCorrelationData(new byte[] {0, -1});
            said.setUserProperties(List.of(new UserProperty("a", "1"), new UserProperty("a", "2")));
            client.paho.publish(topic, message("m", said));
            MqttProperties got = next("m", client.inbox).getProperties();
            equal(got.getContentType(), "text/plain");
            check(got.getPayloadFormat(), "no payload format");
            check(got.getMessageExpiryInterval() <= 100, "no message expiry");
            equal(got.getResponseTopic(), "a/b");
            equal(got.getCorrelationData(), new byte[] {0, -1});
            equal(got.getUserProperties(), said.getUserProperties());
        }
    }

    static void large() throws Exception {
        String topic = topicName();
        try (Client client = open()) {
            client.paho.subscribe(topic, 2);
            client.paho.publish(topic, LARGE, 2, false);
            equal(next("the large one", client.inbox).getPayload(), LARGE);
        }
    }

    static void session() throws Exception {
        String topic = topicName();
        try (Client publisher = open(); Client subscriber = new Client(name("c")).kept().connect()) {
            check(!subscriber.connack.getSessionPresent(), "a session of nobody");
            subscriber.paho.subscribe(topic, 2);
            subscriber.paho.disconnect();
            for (int number = 0; number < 5; number++) publisher.publish(topic, "" + number, 2, false);
            subscriber.connect();
            check(subscriber.connack.getSessionPresent(), "no session");
            for (int number = 0; number < 5; number++) equal(subscriber.payload(), "" + number);
        }
    }

    static void subscriptionOptions() throws Exception {
        String topic = topicName();
        try (Client client = open(); Client other = open()) {
            other.publish(topic, "kept", 1, true);
            MqttSubscription wanted = new MqttSubscription(topic, 1);
            wanted.setNoLocal(true);
            wanted.setRetainAsPublished(true);
            wanted.setRetainHandling(2);
            client.paho.subscribe(new MqttSubscription[] {wanted});
            client.publish(topic, "mine", 1, false);
            other.publish(topic, "other", 1, true);
            MqttMessage got = next("the other's", client.inbox);
            equal(text(got.getPayload()), "other");
            check(got.isRetained(), "not as published");
        }
    }

    static void shared() throws Exception {
        String topic = topicName();
        try (Client publisher = open(); Client first = open(); Client second = open()) {
            for (Client each : List.of(first, second)) each.paho.subscribe("$share/group/" + topic, 1);
            for (int number = 0; number < 40; number++) publisher.publish(topic, "" + number, 1, false);
            until("all forty, to both", () -> first.inbox.size() + second.inbox.size() == 40);
            check(!first.inbox.isEmpty() && !second.inbox.isEmpty(), "one of them had nothing");
        }
    }

    static void aliases() throws Exception {
        String topic = topicName();
        try (Client publisher = open(); Client subscriber = new Client(name("c"))) {
            subscriber.options.setTopicAliasMaximum(3);
            subscriber.connect();
            subscriber.paho.subscribe(topic + "/#", 1);
            List<String> expected = new ArrayList<>();
            for (int number = 0; number < 20; number++) {
                publisher.publish(topic + "/" + number % 5, "" + number, 1, false);
                expected.add("" + number);
            }
            List<String> found = new ArrayList<>();
            while (found.size() < 20) found.add(subscriber.payload());
            equal(found, expected);
        }
    }

    static void takeOver() throws Exception {
        String name = name("c");
        try (Client first = new Client(name).connect(); Client second = new Client(name).connect()) {
            int reason = first.ended.get(DEADLINE, TimeUnit.SECONDS);
            if (!"mosquitto".equals(System.getenv("DRAGOMAN_PEER"))) equal(reason, 0x8E);
            check(second.paho.isConnected(), "the second one is not connected");
        }
    }

    static void refused() throws Exception {
        try (Client client = new Client(name("c"))) {
            client.options.setPassword(bytes("wrong"));
            try {
                client.connect();
            } catch (MqttException error) {
                check(error.getReasonCode() == 0x86 || error.getReasonCode() == 0x87, "refused with " + error);
                return;
            }
            throw new AssertionError("it was let in");
        }
    }

    static void request() throws Exception {
        String topic = topicName();
        try (Client requester = open(); Client service = open()) {
            service.paho.subscribe(topic + "/service", 1);
            requester.paho.subscribe(topic + "/answers", 1);
            MqttProperties asked = new MqttProperties();
            asked.setResponseTopic(topic + "/answers");
            asked.setCorrelationData(bytes("id"));
            requester.paho.publish(topic + "/service", message("question", asked));
            MqttProperties got = next("a question", service.inbox).getProperties();
            MqttProperties answered = new MqttProperties();
            answered.setCorrelationData(got.getCorrelationData());
            service.paho.publish(got.getResponseTopic(), message("answer", answered));
            MqttMessage answer = next("an answer", requester.inbox);
            equal(text(answer.getPayload()), "answer");
            equal(text(answer.getProperties().getCorrelationData()), "id");
        }
    }
}
