import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.GetResponse;
import jakarta.jms.Connection;
import jakarta.jms.JMSConsumer;
import jakarta.jms.JMSContext;
import jakarta.jms.JMSException;
import jakarta.jms.MapMessage;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.QueueBrowser;
import jakarta.jms.Session;
import jakarta.jms.TextMessage;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.qpid.jms.JmsConnectionFactory;

/** How messages are delivered: Qpid's own acknowledge modes, redelivery, JMS 2.0's simple API, transactions over topics. */
public class Delivery extends Jms {
    static final int NO_ACKNOWLEDGE = 257;
    static final int INDIVIDUAL_ACKNOWLEDGE = 101;

    String dead() {
        return name + "-dead";
    }

    /** Another queue, whose rejected messages go to dead(). */
    jakarta.jms.Queue lettered() throws Exception {
        channel.queueDeclare(dead(), false, false, true, null);
        channel.queueDeclare(name + "-lettered", false, false, true,
            Map.of("x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead()));
        return session.createQueue(name + "-lettered");
    }

    void sendTo(jakarta.jms.Destination destination, String... texts) throws JMSException {
        MessageProducer producer = session.createProducer(destination);
        for (String each : texts) producer.send(session.createTextMessage(each));
        producer.close();
    }

    // Acknowledge modes of Qpid's own.

    public void testIndividualAcknowledge() throws Exception {
        send("1", "2", "3");
        Session own = connect(null).createSession(INDIVIDUAL_ACKNOWLEDGE);
        MessageConsumer consumer = own.createConsumer(queue());
        receive(consumer);
        receive(consumer).acknowledge();
        receive(consumer);
        own.close();
        MessageConsumer after = session.createConsumer(queue());
        same(List.of(text(after), text(after)), List.of("1", "3"));
        nothing(after);
    }

    public void testNoAcknowledge() throws Exception {
        send("1", "2");
        Connection other = connect(null, "&jms.prefetchPolicy.all=1");
        MessageConsumer consumer = other.createSession(NO_ACKNOWLEDGE).createConsumer(queue());
        same(text(consumer), "1");
        other.close(); // what it was given is gone, read or not
        untilReady(0);
    }

    public void testClientAcknowledgeIsForAllThatCameBefore() throws Exception {
        send("1", "2", "3", "4");
        Session own = connect(null).createSession(Session.CLIENT_ACKNOWLEDGE);
        MessageConsumer consumer = own.createConsumer(queue());
        receive(consumer);
        receive(consumer);
        receive(consumer).acknowledge();
        receive(consumer);
        own.close();
        same(text(session.createConsumer(queue())), "4");
        connection.close();
        untilReady(0);
    }

    // Redelivery.

    public void testRecoverKeepsTheOrder() throws Exception {
        String[] texts = new String[20];
        for (int number = 0; number < texts.length; number++) texts[number] = "" + number;
        send(texts);
        Session own = connection.createSession(Session.CLIENT_ACKNOWLEDGE);
        MessageConsumer consumer = own.createConsumer(queue());
        for (int number = 0; number < 10; number++) same(text(consumer), "" + number);
        own.recover();
        for (int number = 0; number < texts.length; number++) {
            TextMessage again = (TextMessage) receive(consumer);
            same(again.getText(), "" + number);
            same(again.getJMSRedelivered(), number < 10);
            if (number == texts.length - 1) again.acknowledge();
        }
        connection.close();
        untilReady(0);
    }

    public void testAListenerThatThrows() throws Exception {
        BlockingQueue<String> seen = new LinkedBlockingQueue<>();
        connection.createSession().createConsumer(queue()).setMessageListener(message -> {
            try {
                seen.add(message.getBody(String.class));
            } catch (JMSException error) {
                seen.add(error.toString());
            }
            if (seen.size() < 3) throw new IllegalStateException("not yet"); // Qpid JMS releases the message
        });
        send("m");
        long end = System.currentTimeMillis() + DEADLINE;
        while (seen.size() < 3 && System.currentTimeMillis() < end) Thread.sleep(10);
        connection.close();
        same(new ArrayList<>(seen), List.of("m", "m", "m"));
        untilReady(0);
    }

    public void testWhatIsRedeliveredTooOftenIsRejected() throws Exception {
        jakarta.jms.Queue lettered = lettered();
        Session own = connect(null, "&jms.redeliveryPolicy.maxRedeliveries=2&jms.redeliveryPolicy.outcome=2")
            .createSession(Session.SESSION_TRANSACTED);
        MessageConsumer consumer = own.createConsumer(lettered);
        sendTo(lettered, "bad", "good");
        for (int turn = 0; turn < 3; turn++) {
            same(text(consumer), "bad");
            own.rollback();
        }
        same(text(consumer), "good");
        own.commit();
        Message letter = receive(session.createConsumer(session.createQueue(dead())));
        same(letter.getBody(String.class), "bad");
    }

    // The simple API.

    public void testTheSimpleApi() throws Exception {
        JmsConnectionFactory factory = new JmsConnectionFactory("guest", "guest",
            "amqp://" + address().getHost() + ":" + address().getPort());
        try (JMSContext context = factory.createContext(JMSContext.CLIENT_ACKNOWLEDGE)) {
            context.createProducer().setPriority(7).setProperty("number", 5).setJMSType("kind").send(queue(), "text");
            context.createProducer().send(queue(), Map.of("key", 1L));
            context.createProducer().send(queue(), new byte[] {1, 2});
            JMSConsumer consumer = context.createConsumer(queue());
            Message got = consumer.receive(DEADLINE);
            same(got.getBody(String.class), "text");
            same(List.of(got.getJMSPriority(), got.getIntProperty("number"), got.getJMSType()), List.of(7, 5, "kind"));
            same(consumer.receiveBody(Map.class, DEADLINE), Map.of("key", 1L));
            same(consumer.receiveBody(byte[].class, DEADLINE), new byte[] {1, 2});
            context.acknowledge();
        }
        same(ready(), 0L);
        try (JMSContext context = factory.createContext(JMSContext.SESSION_TRANSACTED)) {
            context.createProducer().send(queue(), "never");
            context.rollback();
            context.createProducer().send(queue(), "once");
            context.commit();
        }
        same(text(session.createConsumer(queue())), "once");
    }

    public void testTheSimpleApiSubscribes() throws Exception {
        JmsConnectionFactory factory = new JmsConnectionFactory("guest", "guest",
            "amqp://" + address().getHost() + ":" + address().getPort() + "?jms.clientID=" + name);
        try (JMSContext context = factory.createContext()) {
            JMSConsumer shared = context.createSharedConsumer(topic(), "shared", "number > 1");
            JMSConsumer durable = context.createDurableConsumer(topic(), "durable");
            for (int number = 1; number < 3; number++) {
                context.createProducer().setProperty("number", number).send(topic(), "" + number);
            }
            same(shared.receiveBody(String.class, DEADLINE), "2");
            same(durable.receiveBody(String.class, DEADLINE), "1");
            same(durable.receiveBody(String.class, DEADLINE), "2");
            durable.close();
            context.unsubscribe("durable");
        }
    }

    // Queues, topics and transactions.

    public void testConsumersShareAQueue() throws Exception {
        AtomicInteger[] counts = {new AtomicInteger(), new AtomicInteger(), new AtomicInteger()};
        Set<String> seen = Collections.synchronizedSet(new HashSet<>());
        for (AtomicInteger count : counts) {
            Connection other = connect(null, "&jms.prefetchPolicy.all=1");
            other.createSession().createConsumer(queue()).setMessageListener(message -> {
                try {
                    seen.add(message.getBody(String.class));
                } catch (JMSException error) {
                    error.printStackTrace();
                }
                count.incrementAndGet();
            });
        }
        String[] texts = new String[90];
        for (int number = 0; number < texts.length; number++) texts[number] = "" + number;
        send(texts);
        long end = System.currentTimeMillis() + DEADLINE;
        while (seen.size() < texts.length && System.currentTimeMillis() < end) Thread.sleep(10);
        same(seen.size(), texts.length);
        int total = 0;
        for (AtomicInteger count : counts) {
            check(count.get() > 0, "each consumer gets some");
            total += count.get();
        }
        same(total, texts.length);
    }

    public void testABrowserWithASelector() throws Exception {
        MessageProducer producer = session.createProducer(queue());
        for (int number = 0; number < 4; number++) {
            Message message = session.createTextMessage("" + number);
            message.setIntProperty("number", number);
            producer.send(message);
        }
        QueueBrowser browser = session.createBrowser(queue(), "number > 1");
        List<String> seen = new ArrayList<>();
        for (Object each : Collections.list(browser.getEnumeration())) seen.add(((TextMessage) each).getText());
        same(seen, List.of("2", "3"));
        same(ready(), 4L);
    }

    public void testATransactionOverQueuesAndATopic() throws Exception {
        jakarta.jms.Queue other = lettered();
        MessageConsumer subscriber = session.createConsumer(topic());
        Session transacted = connection.createSession(Session.SESSION_TRANSACTED);
        MessageConsumer consumer = transacted.createConsumer(queue());
        MessageProducer anywhere = transacted.createProducer(null);
        send("work");
        for (boolean good : new boolean[] {false, true}) {
            same(text(consumer), "work");
            anywhere.send(other, transacted.createTextMessage("result"));
            anywhere.send(topic(), transacted.createTextMessage("news"));
            nothing(subscriber);
            if (good) transacted.commit();
            else transacted.rollback();
        }
        same(text(subscriber), "news");
        nothing(subscriber);
        MessageConsumer results = session.createConsumer(other);
        same(text(results), "result");
        nothing(results);
        consumer.close();
        same(ready(), 0L);
    }

    public void testLargeMessagesInATransaction() throws Exception {
        String large = "Grüße ".repeat(500_000);
        Session transacted = connection.createSession(Session.SESSION_TRANSACTED);
        MapMessage map = transacted.createMapMessage();
        map.setString("large", large);
        map.setBytes("bytes", large.getBytes(StandardCharsets.UTF_8));
        MessageProducer producer = transacted.createProducer(queue());
        producer.send(transacted.createTextMessage(large));
        producer.send(map);
        transacted.commit();
        MessageConsumer consumer = session.createConsumer(queue());
        same(text(consumer), large);
        MapMessage got = (MapMessage) receive(consumer);
        same(got.getString("large"), large);
        same(got.getBytes("bytes"), large.getBytes(StandardCharsets.UTF_8));
    }

    public void testDeliveryDelayToATopicAndInATransaction() throws Exception {
        MessageConsumer subscriber = session.createConsumer(topic());
        MessageConsumer consumer = session.createConsumer(queue());
        Session transacted = connection.createSession(Session.SESSION_TRANSACTED);
        MessageProducer producer = transacted.createProducer(null);
        producer.setDeliveryDelay(1000);
        Message sent = transacted.createTextMessage("later");
        producer.send(topic(), sent);
        check(sent.getJMSDeliveryTime() >= System.currentTimeMillis() + 500, "the delivery time is set");
        producer.send(queue(), transacted.createTextMessage("later too"));
        transacted.commit();
        nothing(subscriber);
        nothing(consumer);
        Message got = receive(subscriber);
        same(got.getBody(String.class), "later");
        same(got.getJMSDeliveryTime(), sent.getJMSDeliveryTime());
        check(System.currentTimeMillis() >= sent.getJMSDeliveryTime() - 100, "it came too early");
        same(text(consumer), "later too");
    }

    public void testAConsumerIsToldThatItsQueueIsGone() throws Exception {
        MessageConsumer consumer = session.createConsumer(lettered());
        channel.queueDelete(name + "-lettered");
        try {
            consumer.receive(DEADLINE);
        } catch (JMSException expected) {
            Throwable said = expected.getCause() != null ? expected.getCause() : expected; // had it heard before, or not
            check(said.getMessage().contains("amqp:resource-deleted"), "found " + expected + ", caused by " + said);
            return;
        }
        throw new AssertionError("the consumer is still open");
    }

    // What the client can add to messages.

    public void testTheUserIsInTheMessage() throws Exception {
        Session own = connect(null, "&jms.populateJMSXUserID=true").createSession();
        own.createProducer(queue()).send(own.createTextMessage("m"));
        same(receive(session.createConsumer(queue())).getStringProperty("JMSXUserID"), "guest");
    }

    public void testKindsOfMessageIds() throws Exception {
        MessageConsumer consumer = session.createConsumer(queue());
        for (String kind : List.of("UUID", "UUID_STRING", "PREFIXED_UUID_STRING")) {
            Session own = connect(null, "&jms.messageIDPolicy.messageIDType=" + kind).createSession();
            Message sent = own.createTextMessage(kind);
            own.createProducer(queue()).send(sent);
            same(receive(consumer).getJMSMessageID(), sent.getJMSMessageID());
        }
        MessageProducer producer = session.createProducer(queue());
        producer.setDisableMessageID(true);
        producer.setDisableMessageTimestamp(true);
        producer.send(session.createTextMessage("none"));
        Message got = receive(consumer);
        same(got.getJMSMessageID(), null);
        same(got.getJMSTimestamp(), 0L);
    }

    // Across the border: all types of properties, which pika has not.

    public void testPropertiesOfAllTypesToRabbitMqsClientAndBack() throws Exception {
        Map<String, Object> values = Map.of("boolean", true, "byte", (byte) -5, "short", (short) -300, "int", 70_000,
            "long", 1L << 40, "float", 1.5f, "double", -2.25, "string", "Grüße");
        Message sent = session.createMessage();
        for (Map.Entry<String, Object> each : values.entrySet()) sent.setObjectProperty(each.getKey(), each.getValue());
        session.createProducer(queue()).send(sent);
        GetResponse got = channel.basicGet(name, true);
        for (Map.Entry<String, Object> each : values.entrySet()) {
            Object found = got.getProps().getHeaders().get(each.getKey());
            same(found instanceof Number || found instanceof Boolean ? found : found.toString(), each.getValue());
        }
        channel.basicPublish("", name, new AMQP.BasicProperties.Builder().headers(values).build(), new byte[0]);
        Message back = receive(session.createConsumer(queue()));
        for (Map.Entry<String, Object> each : values.entrySet()) {
            same(back.getObjectProperty(each.getKey()), each.getValue());
        }
    }
}
