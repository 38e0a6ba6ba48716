import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Address;
import com.rabbitmq.client.AuthenticationFailureException;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ConfirmListener;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.DefaultSaslConfig;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoveryListener;
import com.rabbitmq.client.Return;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcClientParams;
import com.rabbitmq.client.RpcServer;
import com.rabbitmq.client.ShutdownSignalException;
import com.rabbitmq.client.impl.DefaultCredentialsProvider;
import com.rabbitmq.client.impl.DefaultCredentialsRefreshService;
import com.rabbitmq.client.impl.LongStringHelper;
import java.io.IOException;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Date;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** Conformance tests with RabbitMQ's Java client; tests/conformance/run_interop.py compiles and runs them. */
public final class Conformance extends Checks {
    private final Map<String, Test> tests = new LinkedHashMap<>();

    public static void main(String[] arguments) {
        Conformance suite = new Conformance();
        suite.declare();
        int passed = 0;
        List<String> failures = new ArrayList<>();
        for (Map.Entry<String, Test> each : suite.tests.entrySet()) {
            try {
                suite.open();
                try {
                    each.getValue().run();
                } finally {
                    suite.clean();
                }
                passed++;
                System.out.println("ok " + each.getKey());
            } catch (Throwable error) {
                failures.add(each.getKey());
                System.out.println("FAILED " + each.getKey() + ": " + error);
                error.printStackTrace(System.out);
            }
        }
        System.out.println(passed + " passed, " + failures.size() + " failed, 0 skipped");
        System.exit(failures.isEmpty() ? 0 : 1); // the client's threads need no waiting for
    }

    private void declare() {
        tests.put("what the broker says of itself", this::serverProperties);
        tests.put("tuning", this::tuning);
        tests.put("addresses in turn", this::addresses);
        tests.put("new input and output", this::nio);
        tests.put("a refused login", this::refusedLogin);
        tests.put("an unknown virtual host", this::unknownVirtualHost);
        tests.put("a new secret", this::newSecret);
        tests.put("many channels", this::manyChannels);
        tests.put("exchanges of all types", this::exchangesOfAllTypes);
        tests.put("routing", this::routing);
        tests.put("requests without waiting", this::withoutWaiting);
        tests.put("queues", this::queues);
        tests.put("exclusive and fleeting queues", this::exclusiveQueues);
        tests.put("errors", this::errors);
        tests.put("properties survive", this::propertiesSurvive);
        tests.put("bodies of all sizes", this::bodies);
        tests.put("dead letters", this::deadLetters);
        tests.put("message priorities", this::messagePriorities);
        tests.put("confirms", this::confirms);
        tests.put("confirms by callback", this::confirmsByCallback);
        tests.put("returns", this::returns);
        tests.put("transactions", this::transactions);
        tests.put("outcomes", this::outcomes);
        tests.put("consumers", this::consumers);
        tests.put("prefetch", this::prefetch);
        tests.put("consumer kinds", this::consumerKinds);
        tests.put("a cancel by the broker", this::cancelByTheBroker);
        tests.put("remote procedure calls", this::remoteProcedureCalls);
        tests.put("flow", this::flow);
        tests.put("heartbeats", this::heartbeats);
        tests.put("a lost network is told", this::lostNetwork);
        tests.put("recovery", this::recovery);
    }

    // Connecting

    @SuppressWarnings("unchecked")
    private void serverProperties() {
        Map<String, Object> properties = connection.getServerProperties();
        check(properties.keySet().containsAll(List.of("product", "version", "platform")), "" + properties.keySet());
        Map<String, Object> capabilities = (Map<String, Object>) properties.get("capabilities");
        for (String each : List.of("publisher_confirms", "basic.nack", "exchange_exchange_bindings",
                "consumer_cancel_notify", "connection.blocked", "authentication_failure_close", "direct_reply_to")) {
            equal(capabilities.get(each), true);
        }
        equal(connection.getClientProvidedName(), "conformance");
    }

    private void tuning() throws Exception {
        ConnectionFactory factory = factory();
        factory.setRequestedChannelMax(20);
        factory.setRequestedFrameMax(4096);
        factory.setRequestedHeartbeat(7);
        Connection tuned = factory.newConnection();
        try {
            equal(List.of(tuned.getChannelMax(), tuned.getFrameMax(), tuned.getHeartbeat()), List.of(20, 4096, 7));
            for (int number = 0; number < 19; number++) check(tuned.openChannel().isPresent(), "channel " + number);
            String queue = queue(null);
            Channel narrow = tuned.createChannel(20);
            narrow.basicPublish("", queue, null, LARGE);
            check(tuned.openChannel().isEmpty(), "one channel too many");
            equal(until("the message", () -> narrow.basicGet(queue, true)).getBody(), LARGE);
            tuned.close(AMQP.REPLY_SUCCESS, "enough");
        } finally {
            tuned.abort();
        }
    }

    private void addresses() throws Exception {
        ConnectionFactory factory = factory();
        Address[] both = {new Address("127.0.0.1", 1), new Address(factory.getHost(), factory.getPort())};
        try (Connection found = factory.newConnection(both)) {
            check(found.isOpen(), "open");
        }
    }

    @SuppressWarnings("deprecation")
    private void nio() throws Exception {
        ConnectionFactory factory = factory();
        factory.useNio();
        try (Connection own = factory.newConnection()) {
            Channel other = own.createChannel();
            String queue = other.queueDeclare().getQueue();
            other.basicPublish("", queue, null, LARGE);
            equal(until("the message", () -> other.basicGet(queue, true)).getBody(), LARGE);
        }
    }

    private void refusedLogin() throws Exception {
        for (String[] each : new String[][] {{"guest", "wrong"}, {"nobody", "guest"}}) {
            ConnectionFactory factory = factory();
            factory.setUsername(each[0]);
            factory.setPassword(each[1]);
            try {
                factory.newConnection().abort();
            } catch (AuthenticationFailureException error) {
                check(error.getMessage().contains("ACCESS_REFUSED"), error.getMessage());
                continue;
            }
            throw new AssertionError("let in " + each[0]);
        }
        ConnectionFactory factory = factory();
        factory.setSaslConfig(DefaultSaslConfig.EXTERNAL);
        try {
            factory.newConnection().abort();
        } catch (IOException noMechanism) {
            return;
        }
        throw new AssertionError("let in without a certificate");
    }

    private void unknownVirtualHost() throws Exception {
        ConnectionFactory factory = factory();
        factory.setVirtualHost("no-such-host");
        check(refused(AMQP.NOT_ALLOWED, () -> factory.newConnection().abort()).contains("no-such-host"), "names it");
    }

    private void newSecret() throws Exception {
        AtomicInteger refreshes = new AtomicInteger();
        ConnectionFactory factory = factory();
        factory.setCredentialsProvider(new DefaultCredentialsProvider("guest", "guest") {
            @Override
            public Duration getTimeBeforeExpiration() {
                return Duration.ofMillis(500);
            }

            @Override
            public void refresh() {
                refreshes.incrementAndGet();
            }
        });
        DefaultCredentialsRefreshService service =
            new DefaultCredentialsRefreshService.DefaultCredentialsRefreshServiceBuilder()
            .refreshDelayStrategy(DefaultCredentialsRefreshService.fixedDelayBeforeExpirationRefreshDelayStrategy(
                Duration.ofMillis(400)))
            .approachingExpirationStrategy(left -> false).build();
        factory.setCredentialsRefreshService(service);
        try (Connection own = factory.newConnection()) {
            until("two refreshes", () -> refreshes.get() >= 2 ? true : null);
            own.createChannel().queueDeclare();
        } finally {
            service.close();
        }
    }

    private void manyChannels() throws Exception {
        String queue = queue(null);
        for (int number = 0; number < 300; number++) {
            connection.createChannel().basicPublish("", queue, null, bytes("x"));
        }
        depth(queue, 300);
        Channel chosen = connection.createChannel(1234);
        equal(chosen.getChannelNumber(), 1234);
        chosen.close();
        connection.createChannel(1234).close();
    }

    // Declaring

    private void exchangesOfAllTypes() throws Exception {
        for (BuiltinExchangeType type : List.of(BuiltinExchangeType.DIRECT, BuiltinExchangeType.FANOUT,
                BuiltinExchangeType.TOPIC, BuiltinExchangeType.HEADERS)) {
            for (int options = 0; options < 8; options++) {
                boolean durable = (options & 1) > 0, autoDelete = (options & 2) > 0, internal = (options & 4) > 0;
                String exchange = exchangeName();
                Map<String, Object> arguments = Map.of("alternate-exchange", "amq.fanout");
                for (int twice = 0; twice < 2; twice++) {
                    channel.exchangeDeclare(exchange, type, durable, autoDelete, internal, arguments);
                }
                channel.exchangeDeclarePassive(exchange);
                Channel other = connection.createChannel();
                String text = refused(AMQP.PRECONDITION_FAILED,
                    () -> other.exchangeDeclare(exchange, type, !durable, autoDelete, internal, arguments));
                check(text.contains("inequivalent arg 'durable'"), text);
                channel.exchangeDelete(exchange, true);
                Channel another = connection.createChannel();
                refused(AMQP.NOT_FOUND, () -> another.exchangeDeclarePassive(exchange));
            }
        }
    }

    private void routing() throws Exception {
        String direct = exchange("direct", null), fanout = exchange("fanout", null), topic = exchange("topic", null);
        String headers = exchange("headers", null), hash = exchange("x-consistent-hash", null), queue = queue(null);
        channel.queueBind(queue, direct, "key", Map.of("note", "n"));
        channel.queueBind(queue, fanout, "ignored");
        channel.queueBind(queue, topic, "a.*.#");
        channel.queueBind(queue, headers, "", Map.of("x-match", "any", "a", 1, "b", "two"));
        channel.queueBind(queue, hash, "1");
        channel.exchangeBind(direct, topic, "key", Map.of("note", "n"));
        publish(direct, "key", "direct");
        publish(direct, "other", "lost");
        publish(fanout, "", "fanout");
        publish(topic, "a.b.c", "topic");
        publish(topic, "a", "lost");
        publish(topic, "key", "through");
        channel.basicPublish(headers, "", new AMQP.BasicProperties.Builder().headers(Map.of("b", "two")).build(),
            bytes("headers"));
        channel.basicPublish(headers, "", new AMQP.BasicProperties.Builder().headers(Map.of("a", "1")).build(),
            bytes("lost"));
        publish(hash, "any", "hash");
        publish("", queue, "default");
        depth(queue, 7);
        equal(drain(queue), List.of("direct", "fanout", "topic", "through", "headers", "hash", "default"));
        channel.queueUnbind(queue, direct, "key", Map.of("note", "n"));
        channel.exchangeUnbind(direct, topic, "key", Map.of("note", "n"));
        publish(direct, "key", "lost");
        equal(drain(queue), List.of());
    }

    private void withoutWaiting() throws Exception {
        String one = exchangeName(), two = exchangeName(), queue = queueName();
        channel.exchangeDeclareNoWait(one, BuiltinExchangeType.DIRECT, true, false, false, null);
        channel.exchangeDeclareNoWait(two, "fanout", true, false, false, null);
        channel.queueDeclareNoWait(queue, true, false, false, null);
        channel.exchangeBindNoWait(two, one, "key", null);
        channel.queueBindNoWait(queue, two, "", null);
        publish(one, "key", "x");
        equal(text(get(queue, true).getBody()), "x");
        channel.exchangeUnbindNoWait(two, one, "key", null);
        channel.queueDeleteNoWait(queue, false, false);
        channel.exchangeDeleteNoWait(one, false);
        channel.exchangeDeleteNoWait(two, false);
        refused(AMQP.NOT_FOUND, () -> channel.queueDeclarePassive(queue));
    }

    private void queues() throws Exception {
        Map<String, Object> arguments = new HashMap<>();
        arguments.put("x-expires", 600_000);
        arguments.put("x-message-ttl", 60_000L);
        arguments.put("x-max-length", 10);
        arguments.put("x-max-length-bytes", 100_000);
        arguments.put("x-overflow", "reject-publish");
        arguments.put("x-dead-letter-exchange", "");
        arguments.put("x-dead-letter-routing-key", "dead");
        arguments.put("x-max-priority", (short) 5);
        arguments.put("x-queue-type", "classic");
        arguments.put("x-unheard-of", List.of(1, Map.of("a", true)));
        String queue = queue(arguments);
        channel.queueDeclare(queue, true, false, false, arguments);
        Channel other = connection.createChannel();
        refused(AMQP.PRECONDITION_FAILED, () -> other.queueDeclare(queue, true, false, false, null));
        publish("", queue, "x");
        depth(queue, 1);
        equal(channel.consumerCount(queue), 0L);
        Channel another = connection.createChannel();
        refused(AMQP.PRECONDITION_FAILED, () -> another.queueDelete(queue, false, true));
        equal(channel.queuePurge(queue).getMessageCount(), 1);
        equal(channel.queueDelete(queue, true, true).getMessageCount(), 0);
        equal(channel.queueDelete(queue).getMessageCount(), 0);
    }

    private void exclusiveQueues() throws Exception {
        String own = channel.queueDeclare().getQueue();
        check(own.startsWith("amq.gen-"), own);
        try (Connection stranger = factory().newConnection()) {
            Channel other = stranger.createChannel();
            refused(AMQP.RESOURCE_LOCKED, () -> other.queueDeclarePassive(own));
        }
        String fleeting = queueName();
        channel.queueDeclare(fleeting, false, false, true, null);
        String tag = channel.basicConsume(fleeting, new DefaultConsumer(channel));
        channel.basicCancel(tag);
        refused(AMQP.NOT_FOUND, () -> channel.queueDeclarePassive(fleeting));
    }

    private void errors() throws Exception {
        Map<Test, Integer> refusals = new LinkedHashMap<>();
        Channel[] current = new Channel[1];
        refusals.put(() -> current[0].queueDeclarePassive("no-such-queue"), AMQP.NOT_FOUND);
        refusals.put(() -> current[0].queueBind("no-such-queue", "amq.direct", ""), AMQP.NOT_FOUND);
        refusals.put(() -> current[0].basicConsume("no-such-queue", new DefaultConsumer(current[0])), AMQP.NOT_FOUND);
        refusals.put(() -> current[0].basicGet("no-such-queue", true), AMQP.NOT_FOUND);
        refusals.put(() -> current[0].queueDeclare("amq.mine", true, false, false, null), AMQP.ACCESS_REFUSED);
        refusals.put(() -> current[0].exchangeDeclare("amq.mine", "direct"), AMQP.ACCESS_REFUSED);
        refusals.put(() -> current[0].exchangeDelete("amq.topic"), AMQP.ACCESS_REFUSED);
        refusals.put(() -> current[0].txCommit(), AMQP.PRECONDITION_FAILED);
        refusals.put(() -> {
            current[0].basicAck(99, false);
            current[0].queueDeclare();
        }, AMQP.PRECONDITION_FAILED);
        refusals.put(() -> {
            current[0].basicPublish("no-such-exchange", "", null, bytes("x"));
            current[0].queueDeclare();
        }, AMQP.NOT_FOUND);
        for (Map.Entry<Test, Integer> each : refusals.entrySet()) {
            current[0] = connection.createChannel();
            refused(each.getValue(), each.getKey());
            check(!current[0].isOpen() && connection.isOpen(), "only the channel is closed");
        }
        BlockingQueue<ShutdownSignalException> ends = new LinkedBlockingQueue<>();
        connection.addShutdownListener(ends::add);
        refused(AMQP.COMMAND_INVALID, () -> channel.exchangeDeclare(name("exchange"), "no-such-type"));
        ShutdownSignalException end = next("the shutdown", ends);
        check(end.isHardError() && !end.isInitiatedByApplication(), "" + end);
    }

    // Messages

    private void propertiesSurvive() throws Exception {
        Map<String, Object> headers = new HashMap<>();
        headers.put("string", LongStringHelper.asLongString("grüße"));
        headers.put("int", -5);
        headers.put("long", Long.MIN_VALUE);
        headers.put("short", Short.MIN_VALUE);
        headers.put("byte", Byte.MIN_VALUE);
        headers.put("boolean", true);
        headers.put("float", 0.1f);
        headers.put("double", 0.1);
        headers.put("decimal", new BigDecimal("-3.14"));
        headers.put("date", new Date(1_700_000_000_000L));
        headers.put("null", null);
        headers.put("bytes", new byte[] {0, -1, -2});
        headers.put("list", Arrays.asList(1, LongStringHelper.asLongString("two"), null, List.of(true)));
        headers.put("table", Map.of("deep", Map.of("deeper", 1L)));
        AMQP.BasicProperties sent = new AMQP.BasicProperties.Builder()
            .contentType("application/json").contentEncoding("utf-8").headers(headers).deliveryMode(2).priority(9)
            .correlationId("correlation").replyTo("reply").expiration("3600000").messageId("id")
            .timestamp(new Date(1_700_000_000_000L)).type("kind").userId("guest").appId("app").clusterId("cluster")
            .build();
        String queue = queue(null);
        for (AMQP.BasicProperties each : List.of(sent, MessageProperties.MINIMAL_BASIC,
                MessageProperties.PERSISTENT_TEXT_PLAIN)) {
            channel.basicPublish("", queue, each, bytes("x"));
            GetResponse got = get(queue, true);
            Map<String, Object> back = got.getProps().getHeaders();
            if (each == sent) {
                equal(back.keySet(), headers.keySet());
                for (String key : headers.keySet()) {
                    check(Objects.deepEquals(back.get(key), headers.get(key)), key + ": " + back.get(key));
                }
                equal(got.getProps().builder().headers(null).build(), sent.builder().headers(null).build());
            } else {
                equal(got.getProps(), each);
            }
            equal(got.getEnvelope().getRoutingKey(), queue);
        }
        Channel other = connection.createChannel();
        refused(AMQP.PRECONDITION_FAILED, () -> {
            other.basicPublish("", queue, new AMQP.BasicProperties.Builder().userId("somebody").build(), bytes("x"));
            other.queueDeclare();
        });
    }

    private void bodies() throws Exception {
        String queue = queue(null);
        for (int size : new int[] {0, 1, 131_064, 131_065, LARGE.length}) {
            channel.basicPublish("", queue, null, Arrays.copyOf(LARGE, size));
            equal(get(queue, true).getBody(), Arrays.copyOf(LARGE, size));
        }
    }

    @SuppressWarnings("unchecked")
    private void deadLetters() throws Exception {
        String dead = queue(null);
        String queue = queue(Map.of("x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead,
            "x-max-length", 1));
        List<String> reasons = new ArrayList<>();
        Test look = () -> {
            Map<String, Object> headers = get(dead, true).getProps().getHeaders();
            Map<String, Object> death = ((List<Map<String, Object>>) headers.get("x-death")).get(0);
            reasons.add(death.get("reason").toString());
            equal(death.get("queue").toString(), queue);
            equal(death.get("count"), 1L);
        };
        channel.basicPublish("", queue, new AMQP.BasicProperties.Builder().expiration("1").build(), bytes("x"));
        look.run();
        publish("", queue, "1");
        publish("", queue, "2");
        look.run();
        channel.basicReject(get(queue, false).getEnvelope().getDeliveryTag(), false);
        look.run();
        publish("", queue, "3");
        channel.basicNack(get(queue, false).getEnvelope().getDeliveryTag(), false, false);
        look.run();
        equal(reasons, List.of("expired", "maxlen", "rejected", "rejected"));
    }

    private void messagePriorities() throws Exception {
        String queue = queue(Map.of("x-max-priority", 3));
        int[] priorities = {0, 3, 1, 2, 9};
        for (int at = 0; at < priorities.length; at++) {
            channel.basicPublish("", queue, new AMQP.BasicProperties.Builder().priority(priorities[at]).build(),
                bytes("" + at));
        }
        depth(queue, 5);
        equal(drain(queue), List.of("1", "4", "3", "2", "0"));
    }

    // Publishing

    private void confirms() throws Exception {
        String queue = queue(Map.of("x-max-length", 50, "x-overflow", "reject-publish"));
        channel.confirmSelect();
        equal(channel.getNextPublishSeqNo(), 1L);
        for (int number = 0; number < 50; number++) {
            channel.basicPublish("", queue, MessageProperties.MINIMAL_PERSISTENT_BASIC, bytes("x"));
        }
        channel.waitForConfirmsOrDie(TimeUnit.SECONDS.toMillis(DEADLINE));
        equal(channel.messageCount(queue), 50L);
        publish("", queue, "one too many");
        check(!channel.waitForConfirms(TimeUnit.SECONDS.toMillis(DEADLINE)), "the refusal");
    }

    private void confirmsByCallback() throws Exception {
        String queue = queue(Map.of("x-max-length", 95, "x-overflow", "reject-publish"));
        ConcurrentSkipListSet<Long> open = new ConcurrentSkipListSet<>(), refused = new ConcurrentSkipListSet<>();
        channel.confirmSelect();
        channel.addConfirmListener(new ConfirmListener() {
            @Override
            public void handleAck(long tag, boolean multiple) {
                if (multiple) open.headSet(tag, true).clear();
                else check(open.remove(tag), "acknowledged twice: " + tag);
            }

            @Override
            public void handleNack(long tag, boolean multiple) {
                refused.addAll(multiple ? new ArrayList<>(open.headSet(tag, true)) : List.of(tag));
                handleAck(tag, multiple);
            }
        });
        for (int number = 0; number < 100; number++) {
            open.add(channel.getNextPublishSeqNo());
            publish("", queue, "x");
        }
        until("all confirms", () -> open.isEmpty() ? true : null);
        equal(new ArrayList<>(refused), List.of(96L, 97L, 98L, 99L, 100L));
    }

    private void returns() throws Exception {
        BlockingQueue<Return> returned = new LinkedBlockingQueue<>();
        channel.addReturnListener((Return each) -> returned.add(each));
        channel.basicPublish("amq.direct", "nowhere", true,
            new AMQP.BasicProperties.Builder().messageId("7").build(), bytes("back"));
        Return got = next("the return", returned);
        equal(List.of(got.getReplyCode(), got.getReplyText(), got.getExchange(), got.getRoutingKey(),
            got.getProperties().getMessageId(), text(got.getBody())),
            List.of(AMQP.NO_ROUTE, "NO_ROUTE", "amq.direct", "nowhere", "7", "back"));
    }

    private void transactions() throws Exception {
        String queue = queue(null);
        Channel transacted = connection.createChannel();
        transacted.txSelect();
        transacted.basicPublish("", queue, null, bytes("no"));
        transacted.txRollback();
        transacted.basicPublish("", queue, null, bytes("yes"));
        equal(drain(queue), List.of());
        transacted.txCommit();
        equal(drain(queue), List.of("yes"));
        refused(AMQP.PRECONDITION_FAILED, transacted::confirmSelect);
    }

    // Consuming

    private void outcomes() throws Exception {
        String queue = queue(null);
        for (String body : List.of("a", "b", "c", "d", "e")) publish("", queue, body);
        depth(queue, 5);
        List<Envelope> got = new ArrayList<>();
        for (int number = 0; number < 5; number++) {
            GetResponse each = channel.basicGet(queue, false);
            equal(each.getMessageCount(), 4 - number);
            got.add(each.getEnvelope());
        }
        channel.basicAck(got.get(1).getDeliveryTag(), true);
        channel.basicNack(got.get(2).getDeliveryTag(), false, false);
        channel.basicNack(got.get(3).getDeliveryTag(), false, true);
        channel.basicReject(got.get(4).getDeliveryTag(), true);
        depth(queue, 2);
        GetResponse again = channel.basicGet(queue, false);
        equal(List.of(text(again.getBody()), again.getEnvelope().isRedeliver()), List.of("d", true));
        channel.basicRecover();
        depth(queue, 2);
        channel.basicGet(queue, false);
        channel.basicRecover(true);
        depth(queue, 2);
        equal(drain(queue), List.of("d", "e"));
    }

    private void consumers() throws Exception {
        String queue = queue(null);
        BlockingQueue<Delivery> received = new LinkedBlockingQueue<>();
        channel.basicQos(20);
        String tag = channel.basicConsume(queue, false, "mine", (consumer, delivery) -> received.add(delivery),
            consumer -> { });
        equal(tag, "mine");
        Channel publisher = connection.createChannel();
        for (int number = 0; number < 2000; number++) publisher.basicPublish("", queue, null, bytes("" + number));
        for (int number = 0; number < 2000; number++) {
            Delivery each = next("delivery " + number, received);
            equal(text(each.getBody()), "" + number);
            channel.basicAck(each.getEnvelope().getDeliveryTag(), number % 7 == 0);
        }
        channel.basicCancel("mine");
        equal(channel.consumerCount(queue), 0L);
        depth(queue, 0);
    }

    private void prefetch() throws Exception {
        for (boolean shared : new boolean[] {false, true}) {
            String queue = queue(null);
            for (int number = 0; number < 20; number++) publish("", queue, "x");
            depth(queue, 20);
            Channel own = connection.createChannel();
            own.basicQos(3, shared);
            BlockingQueue<Delivery> received = new LinkedBlockingQueue<>();
            for (int number = 0; number < 2; number++) {
                own.basicConsume(queue, false, (consumer, delivery) -> received.add(delivery), consumer -> { });
            }
            int expected = shared ? 3 : 6;
            depth(queue, 20 - expected);
            until("the prefetch", () -> received.size() == expected ? true : null);
            received.clear();
            own.basicAck(0, true);
            until("the next ones", () -> received.size() == expected ? true : null);
            own.close();
        }
        Channel own = connection.createChannel();
        refused(AMQP.NOT_IMPLEMENTED, () -> own.basicQos(1000, 1, false));
    }

    private void consumerKinds() throws Exception {
        String queue = queue(Map.of("x-single-active-consumer", true));
        BlockingQueue<String> received = new LinkedBlockingQueue<>();
        for (String tag : List.of("first", "second")) {
            channel.basicConsume(queue, true, tag, (consumer, delivery) -> received.add(consumer), consumer -> { });
        }
        publish("", queue, "x");
        equal(next("the delivery", received), "first");
        channel.basicCancel("first");
        publish("", queue, "x");
        equal(next("the delivery", received), "second");
        String other = queue(null);
        channel.basicConsume(other, true, "alone", false, true, null, new DefaultConsumer(channel));
        Channel refusedChannel = connection.createChannel();
        refused(AMQP.ACCESS_REFUSED, () -> refusedChannel.basicConsume(other, new DefaultConsumer(refusedChannel)));
        String third = queue(null);
        Channel own = connection.createChannel();
        own.basicQos(1);
        own.basicConsume(third, false, Map.of("x-priority", -5), (tag, delivery) -> received.add("low"), tag -> { });
        own.basicConsume(third, false, Map.of("x-priority", 5), (tag, delivery) -> received.add("high"), tag -> { });
        publish("", third, "1");
        equal(next("the first delivery", received), "high");
        publish("", third, "2");
        equal(next("the second delivery", received), "low");
    }

    private void cancelByTheBroker() throws Exception {
        String queue = queue(null);
        BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, true, "mine", (tag, delivery) -> { }, cancelled::add);
        connection.createChannel().queueDelete(queue);
        equal(next("the cancel", cancelled), "mine");
    }

    private void remoteProcedureCalls() throws Exception {
        String queue = queue(null);
        Channel serving = connection.createChannel();
        RpcServer server = new RpcServer(serving, queue) {
            @Override
            public byte[] handleCall(Delivery request, AMQP.BasicProperties reply) {
                return bytes(text(request.getBody()) + "!");
            }
        };
        Thread thread = new Thread(() -> {
            try {
                server.mainloop();
            } catch (IOException | ShutdownSignalException closed) {
                // the test is over
            }
        });
        thread.start();
        for (String reply : List.of("amq.rabbitmq.reply-to", channel.queueDeclare().getQueue())) {
            RpcClient client = new RpcClient(new RpcClientParams().channel(channel).exchange("").routingKey(queue)
                .replyTo(reply).timeout((int) TimeUnit.SECONDS.toMillis(DEADLINE)));
            for (int number = 0; number < 20; number++) equal(client.stringCall("" + number), number + "!");
            client.close();
        }
        server.terminateMainloop();
        serving.close(); // wakes the loop
        thread.join(TimeUnit.SECONDS.toMillis(DEADLINE));
        check(!thread.isAlive(), "the server has stopped");
    }

    private void flow() throws Exception {
        AMQP.Channel.FlowOk answer = (AMQP.Channel.FlowOk) channel.rpc(
            new AMQP.Channel.Flow.Builder().active(true).build()).getMethod();
        check(answer.getActive(), "active");
    }

    // Trouble

    private void heartbeats() throws Exception {
        ConnectionFactory factory = factory();
        factory.setRequestedHeartbeat(1);
        try (Connection own = factory.newConnection()) {
            Thread.sleep(3500);
            own.createChannel().queueDeclare();
        }
    }

    private void lostNetwork() throws Exception {
        try (Network network = new Network()) {
            Connection own = network.factoryThrough().newConnection();
            BlockingQueue<ShutdownSignalException> ends = new LinkedBlockingQueue<>();
            own.addShutdownListener(ends::add);
            own.createChannel().addShutdownListener(ends::add);
            network.cut();
            check(!next("the shutdown", ends).isInitiatedByApplication(), "by the network");
            next("the channel's shutdown", ends);
        }
    }

    private void recovery() throws Exception {
        try (Network network = new Network()) {
            ConnectionFactory factory = network.factoryThrough();
            factory.setAutomaticRecoveryEnabled(true);
            factory.setTopologyRecoveryEnabled(true);
            factory.setNetworkRecoveryInterval(50);
            BlockingQueue<String> recovered = new LinkedBlockingQueue<>(), received = new LinkedBlockingQueue<>();
            try (Connection own = factory.newConnection()) {
                ((Recoverable) own).addRecoveryListener(new RecoveryListener() {
                    @Override
                    public void handleRecovery(Recoverable which) {
                        recovered.add("recovered");
                    }

                    @Override
                    public void handleRecoveryStarted(Recoverable which) {
                        received.clear();
                    }
                });
                Channel healing = own.createChannel();
                String exchange = exchangeName();
                healing.exchangeDeclare(exchange, "topic", false, true, Collections.emptyMap());
                String queue = healing.queueDeclare().getQueue(); // gets another name when it is recovered
                healing.queueBind(queue, exchange, "a.*");
                healing.basicConsume(queue, true, "mine", (tag, delivery) -> received.add(text(delivery.getBody())),
                    tag -> { });
                for (int round = 0; round < 3; round++) {
                    publish(exchange, "a.b", "round " + round);
                    equal(next("the delivery", received), "round " + round);
                    if (round < 2) {
                        network.cut();
                        next("the recovery", recovered);
                    }
                }
            }
        }
    }
}
