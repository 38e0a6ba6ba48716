package com.rabbitmq.client.amqp.impl;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.amqp.AmqpException;
import com.rabbitmq.client.amqp.Environment;
import com.rabbitmq.qpid.protonj2.client.Client;
import com.rabbitmq.qpid.protonj2.client.Connection;
import com.rabbitmq.qpid.protonj2.client.ConnectionOptions;
import com.rabbitmq.qpid.protonj2.client.Delivery;
import com.rabbitmq.qpid.protonj2.client.DeliveryMode;
import com.rabbitmq.qpid.protonj2.client.DeliveryState;
import com.rabbitmq.qpid.protonj2.client.Receiver;
import com.rabbitmq.qpid.protonj2.client.ReceiverOptions;
import com.rabbitmq.qpid.protonj2.client.Sender;
import com.rabbitmq.qpid.protonj2.client.SenderOptions;
import com.rabbitmq.qpid.protonj2.client.Session;
import com.rabbitmq.qpid.protonj2.client.Tracker;
import java.lang.reflect.Method;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/**
 * RabbitMQ's Java client of AMQP 1.0: its addresses, messages and outcomes.
 *
 * The client as a whole connects to nothing but RabbitMQ 4: it wants such a version, and a node's name, among the
 * properties of the broker's open. So here protonj2, the engine that the client is made of and brings along, talks to
 * the broker; addresses are those that the client's own builder makes, messages are the client's, and links are opened
 * and deliveries settled with the options and outcomes that the client uses.
 */
public class RabbitMq10 {
    static final long DEADLINE = 20; // seconds, a guard against hanging only

    final URI url = URI.create(System.getenv("AMQP_URL"));
    com.rabbitmq.client.Connection legacy;
    Channel channel;
    Client client;
    Connection connection;
    Session session;
    String name;

    public static void main(String[] arguments) {
        int passed = 0;
        int failed = 0;
        Method[] methods = RabbitMq10.class.getDeclaredMethods();
        Arrays.sort(methods, (one, other) -> one.getName().compareTo(other.getName()));
        for (Method method : methods) {
            if (!method.getName().startsWith("test")) continue;
            RabbitMq10 test = new RabbitMq10();
            try {
                test.setUp();
                try {
                    method.invoke(test);
                } finally {
                    test.tearDown();
                }
                passed++;
                System.out.println("ok " + method.getName());
            } catch (Throwable error) {
                failed++;
                Throwable cause = error.getCause() != null ? error.getCause() : error;
                System.out.println("FAILED " + method.getName() + ": " + cause);
                for (StackTraceElement line : cause.getStackTrace()) {
                    if (line.getClassName().equals(RabbitMq10.class.getName())) {
                        System.out.println("    at line " + line.getLineNumber());
                    }
                }
            }
        }
        System.out.println(passed + " passed, " + failed + " failed, 0 skipped");
        System.exit(failed == 0 ? 0 : 1);
    }

    void setUp() throws Exception {
        name = "rabbitmq10-" + UUID.randomUUID();
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost(url.getHost());
        factory.setPort(url.getPort());
        legacy = factory.newConnection();
        channel = legacy.createChannel();
        declare(name);
        client = Client.create();
        ConnectionOptions options = new ConnectionOptions().user("guest").password("guest").virtualHost("vhost:/");
        options.saslOptions().addAllowedMechanism("PLAIN");
        connection = client.connect(url.getHost(), url.getPort(), options);
        session = connection.openSession(Utils.sessionOptions());
    }

    void tearDown() throws Exception {
        client.close();
        legacy.close();
    }

    /** A queue that anybody may use, gone a minute after its last use. */
    void declare(String queue) throws Exception {
        channel.queueDeclare(queue, false, false, false, Map.of("x-expires", 60_000));
    }

    static String queueAddress(String queue) {
        return new Builder().queue(queue).address();
    }

    static String exchangeAddress(String exchange, String key) {
        Builder builder = new Builder().exchange(exchange);
        return (key == null ? builder : builder.key(key)).address();
    }

    /** The client's builder of addresses, for nothing but an address. */
    static class Builder extends DefaultAddressBuilder<Builder> {
        Builder() {
            super(null);
        }

        @Override
        Builder result() {
            return this;
        }
    }

    static AmqpMessage message(String text) {
        return new AmqpMessage(text.getBytes(StandardCharsets.UTF_8));
    }

    Sender sender(String address) throws Exception {
        Sender sender = address == null ? session.openAnonymousSender()
            : session.openSender(address, new SenderOptions().deliveryMode(DeliveryMode.AT_LEAST_ONCE));
        sender.openFuture().get(DEADLINE, TimeUnit.SECONDS);
        return sender;
    }

    Receiver receiver(String queue, ReceiverOptions options) throws Exception {
        Receiver receiver = session.openReceiver(queueAddress(queue), options.autoAccept(false).autoSettle(false));
        receiver.openFuture().get(DEADLINE, TimeUnit.SECONDS);
        return receiver;
    }

    DeliveryState publish(Sender sender, AmqpMessage message) throws Exception {
        Tracker tracker = sender.send(message.enforceDurability().nativeMessage());
        tracker.settlementFuture().get(DEADLINE, TimeUnit.SECONDS);
        return tracker.remoteState();
    }

    void accepted(Sender sender, AmqpMessage message) throws Exception {
        same(publish(sender, message).getType(), DeliveryState.Type.ACCEPTED);
    }

    static Delivery next(Receiver receiver) throws Exception {
        Delivery delivery = receiver.receive(DEADLINE, TimeUnit.SECONDS);
        check(delivery != null, "a message was to come");
        return delivery;
    }

    static AmqpMessage read(Delivery delivery) throws Exception {
        return new AmqpMessage(delivery.message());
    }

    static String text(Delivery delivery) throws Exception {
        return new String(read(delivery).body(), StandardCharsets.UTF_8);
    }

    String take(String queue) throws Exception {
        Receiver receiver = receiver(queue, new ReceiverOptions().creditWindow(1));
        Delivery delivery = next(receiver);
        String found = text(delivery);
        delivery.disposition(DeliveryState.accepted(), true);
        receiver.closeAsync().get(DEADLINE, TimeUnit.SECONDS);
        return found;
    }

    void untilReady(String queue, long count) throws Exception {
        long end = System.currentTimeMillis() + 1000 * DEADLINE;
        while (channel.messageCount(queue) != count && System.currentTimeMillis() < end) Thread.sleep(10);
        same(channel.messageCount(queue), count);
    }

    static void check(boolean right, String what) {
        if (!right) throw new AssertionError(what);
    }

    static void same(Object found, Object expected) {
        check(Objects.deepEquals(found, expected), "found " + found + " instead of " + expected);
    }

    interface Attempt {
        void run() throws Exception;
    }

    static void refused(Attempt attempt, String condition) throws Exception {
        try {
            attempt.run();
        } catch (ExecutionException error) {
            check(error.getCause().toString().contains(condition), "found " + error.getCause());
            return;
        }
        throw new AssertionError("it was not refused");
    }

    /** Names of queues, exchanges and keys: whatever can be written must arrive. */
    List<String> names() {
        List<String> names = new ArrayList<>();
        for (String each : List.of("plain", "with/slash", "/leading", "trailing/", "with space", "Grüße", "\uD83D\uDC30",
                "100%", "%2F", "a+b", "a:b@c", "a?b=c&d", "#*.", "\"quoted\"", "~-_.", "queues/x")) {
            names.add(each + name);
        }
        return names;
    }

    // The client as a whole.

    /** When this fails, the client has become less particular, and can itself be tested here. */
    public void testTheClientConnectsToNothingButRabbitMq() {
        try (Environment environment = new AmqpEnvironmentBuilder().build()) {
            environment.connectionBuilder().host(url.getHost()).port(url.getPort()).username("guest").password("guest")
                .build();
        } catch (AmqpException expected) {
            check(expected.getMessage().contains("requires RabbitMQ 4.0"), "found " + expected);
            return;
        }
        throw new AssertionError("it has connected");
    }

    // Addresses.

    public void testQueuesOfAnyName() throws Exception {
        for (String queue : names()) {
            declare(queue);
            accepted(sender(queueAddress(queue)), message("by the link"));
            accepted(sender(null), (AmqpMessage) message("by the message").toAddress().queue(queue).message());
            same(take(queue), "by the link");
            same(take(queue), "by the message");
            channel.queueDelete(queue);
        }
    }

    public void testExchangesAndKeysOfAnyName() throws Exception {
        for (String each : names()) {
            channel.exchangeDeclare(each, "direct", false, true, null);
            channel.queueBind(name, each, "key " + each);
            accepted(sender(exchangeAddress(each, "key " + each)), message("by the link"));
            accepted(sender(null),
                (AmqpMessage) message("by the message").toAddress().exchange(each).key("key " + each).message());
            same(take(name), "by the link");
            same(take(name), "by the message");
            channel.queueUnbind(name, each, "key " + each);
        }
    }

    public void testAnExchangeWithoutAKey() throws Exception {
        channel.exchangeDeclare(name, "fanout", false, true, null);
        channel.queueBind(name, name, "");
        channel.queueBind(name, "amq.direct", "");
        accepted(sender(exchangeAddress(name, null)), message("fanout"));
        accepted(sender(exchangeAddress("amq.direct", null)), message("direct"));
        same(List.of(take(name), take(name)), List.of("fanout", "direct"));
    }

    public void testTheSubjectIsNoRoutingKey() throws Exception {
        channel.queueBind(name, "amq.topic", name + ".key");
        String address = exchangeAddress("amq.topic", name + ".key");
        accepted(sender(address), (AmqpMessage) message("by the link").subject("other"));
        accepted(sender(null), (AmqpMessage) message("by the message").subject("other").to(address));
        same(List.of(take(name), take(name)), List.of("by the link", "by the message"));
    }

    public void testWhatIsNotThere() throws Exception {
        refused(() -> sender(queueAddress(name + "-missing")), "amqp:not-found");
        refused(() -> sender(exchangeAddress(name + "-missing", "key")), "amqp:not-found");
        refused(() -> receiver(name + "-missing", new ReceiverOptions()), "amqp:not-found");
        Sender anywhere = sender(null);
        same(publish(anywhere, (AmqpMessage) message("m").to(queueAddress(name + "-missing"))).getType(),
            DeliveryState.Type.REJECTED);
        same(publish(anywhere, message("m")).getType(), DeliveryState.Type.REJECTED);
        accepted(anywhere, (AmqpMessage) message("m").to(queueAddress(name))); // the link has survived
    }

    /** RabbitMQ would release it; either way the publisher hears that it was not taken. */
    public void testUnroutable() throws Exception {
        same(publish(sender(exchangeAddress("amq.direct", name + "-nowhere")), message("m")).getType(),
            DeliveryState.Type.REJECTED);
    }

    // Messages and outcomes.

    public void testAllOfAMessage() throws Exception {
        AmqpMessage sent = message("body");
        UUID id = UUID.randomUUID();
        sent.messageId(id).correlationId("correlation").userId("guest".getBytes(StandardCharsets.UTF_8)).subject("s")
            .contentType("a/b").contentEncoding("gzip").creationTime(1_500_000_000_123L).groupId("g").groupSequence(3)
            .replyToGroupId("r").priority((byte) 7).replyToAddress().queue("reply queue").message()
            .property("boolean", true).property("byte", (byte) -5).property("short", (short) -300)
            .property("int", 70_000).property("long", 1L << 40).property("float", 1.5f).property("double", -2.25)
            .property("char", 'x').property("uuid", id).property("string", "Grüße")
            .property("binary", new byte[] {1, 2}).propertySymbol("symbol", "sym").propertyUnsigned("ubyte", (byte) -1)
            .annotation("x-opt-mine", "note");
        accepted(sender(queueAddress(name)), sent);
        Delivery delivery = next(receiver(name, new ReceiverOptions()));
        AmqpMessage got = read(delivery);
        same(got.messageIdAsUuid(), id);
        same(got.correlationId(), "correlation");
        same(new String(got.userId(), StandardCharsets.UTF_8), "guest");
        same(List.of(got.subject(), got.contentType(), got.contentEncoding(), got.groupId(), got.replyToGroupId()),
            List.of("s", "a/b", "gzip", "g", "r"));
        same(List.of(got.creationTime(), got.groupSequence(), got.replyTo(), got.durable(), got.priority()),
            List.of(1_500_000_000_123L, 3, "/queues/reply%20queue", true, (byte) 7));
        for (String each : List.of("boolean", "byte", "short", "int", "long", "float", "double", "char", "uuid",
                "string", "symbol", "ubyte")) {
            same(got.property(each), sent.property(each));
        }
        same(got.annotation("x-opt-mine"), "note");
        delivery.disposition(DeliveryState.accepted(), true);
    }

    public void testTheConsumersOutcomes() throws Exception {
        String dead = name + "-dead";
        declare(dead);
        channel.queueDeclare(name + "-lettered", false, false, false, Map.of(
            "x-expires", 60_000, "x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead));
        accepted(sender(queueAddress(name + "-lettered")), message("m"));
        Receiver receiver = receiver(name + "-lettered", new ReceiverOptions().creditWindow(1));
        next(receiver).disposition(DeliveryState.released(), true); // requeue()
        Delivery delivery = next(receiver);
        same(delivery.message().deliveryCount(), 0L);
        delivery.disposition(DeliveryState.modified(true, false, Map.of("x-opt-why", "later")), true); // with a reason
        delivery = next(receiver);
        same(delivery.message().deliveryCount(), 1L);
        same(read(delivery).annotation("x-opt-why"), "later");
        delivery.disposition(DeliveryState.rejected("", ""), true); // discard()
        same(take(dead), "m");
    }

    public void testRequestsAndReplies() throws Exception {
        String replies = name + " replies";
        declare(replies);
        accepted(sender(queueAddress(name)), (AmqpMessage) message("request").messageId("1")
            .replyToAddress().queue(replies).message());
        Delivery request = next(receiver(name, new ReceiverOptions()));
        AmqpMessage got = read(request);
        accepted(sender(null), (AmqpMessage) message("reply").to(got.replyTo()).correlationId(got.messageId()));
        request.disposition(DeliveryState.accepted(), true);
        Delivery reply = next(receiver(replies, new ReceiverOptions()));
        same(List.of(text(reply), read(reply).correlationId()), List.of("reply", "1"));
        channel.queueDelete(replies);
    }

    public void testPresettledConsumers() throws Exception {
        Sender sender = sender(queueAddress(name));
        for (int number = 0; number < 10; number++) accepted(sender, message("" + number));
        Receiver receiver = receiver(name, new ReceiverOptions().deliveryMode(DeliveryMode.AT_MOST_ONCE).creditWindow(10));
        for (int number = 0; number < 10; number++) {
            Delivery delivery = next(receiver);
            same(text(delivery), "" + number);
            check(delivery.remoteSettled(), "the broker has settled it");
        }
        receiver.closeAsync().get(DEADLINE, TimeUnit.SECONDS);
        same(channel.messageCount(name), 0L);
    }

    public void testPrioritiesOfConsumers() throws Exception {
        Receiver low = receiver(name, new ReceiverOptions().properties(Map.of("rabbitmq:priority", -5)));
        Receiver high = receiver(name, new ReceiverOptions().properties(Map.of("rabbitmq:priority", 5)));
        Sender sender = sender(queueAddress(name));
        for (int number = 0; number < 5; number++) {
            accepted(sender, message("" + number));
            Delivery delivery = next(high);
            same(text(delivery), "" + number);
            delivery.disposition(DeliveryState.accepted(), true);
        }
        same(low.tryReceive(), null);
    }

    public void testALargeMessage() throws Exception {
        byte[] content = new byte[5 << 20];
        for (int at = 0; at < content.length; at++) content[at] = (byte) (at * 31);
        accepted(sender(queueAddress(name)), new AmqpMessage(content));
        Delivery delivery = next(receiver(name, new ReceiverOptions()));
        check(Arrays.equals(read(delivery).body(), content), "the same bytes");
        delivery.disposition(DeliveryState.accepted(), true);
    }

    public void testManyMessagesAtOnce() throws Exception {
        int count = 5000;
        Sender sender = sender(queueAddress(name));
        Receiver receiver = receiver(name, new ReceiverOptions().creditWindow(100));
        List<Tracker> trackers = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            trackers.add(sender.send(message("" + number).enforceDurability().nativeMessage()));
        }
        for (int number = 0; number < count; number++) {
            Delivery delivery = next(receiver);
            same(text(delivery), "" + number);
            delivery.disposition(DeliveryState.accepted(), true);
        }
        for (Tracker tracker : trackers) {
            tracker.settlementFuture().get(DEADLINE, TimeUnit.SECONDS);
            same(tracker.remoteState().getType(), DeliveryState.Type.ACCEPTED);
        }
        receiver.closeAsync().get(DEADLINE, TimeUnit.SECONDS);
        untilReady(name, 0);
    }

    // Beside the client of 0-9-1.

    public void testToAndFromTheOtherClient() throws Exception {
        accepted(sender(queueAddress(name)), (AmqpMessage) message("there").messageId("1").property("n", 5L)
            .contentType("text/x").subject("s"));
        GetResponse got = channel.basicGet(name, true);
        AMQP.BasicProperties properties = got.getProps();
        same(new String(got.getBody(), StandardCharsets.UTF_8), "there");
        same(List.of(properties.getMessageId(), properties.getContentType(), properties.getDeliveryMode(),
            properties.getHeaders().get("n"), properties.getType()), List.of("1", "text/x", 2, 5L, "s"));
        channel.basicPublish("", name, new AMQP.BasicProperties.Builder().messageId("2").headers(Map.of("n", 6))
            .contentType("application/octet-stream").build(), "back".getBytes(StandardCharsets.UTF_8));
        Delivery delivery = next(receiver(name, new ReceiverOptions()));
        AmqpMessage back = read(delivery);
        same(List.of(text(delivery), back.messageId(), back.property("n"), back.annotation("x-routing-key")),
            List.of("back", "2", 6, name));
        delivery.disposition(DeliveryState.accepted(), true);
    }
}
