import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.GetResponse;
import jakarta.jms.BytesMessage;
import jakarta.jms.Connection;
import jakarta.jms.DeliveryMode;
import jakarta.jms.InvalidSelectorException;
import jakarta.jms.JMSException;
import jakarta.jms.MapMessage;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.ObjectMessage;
import jakarta.jms.Queue;
import jakarta.jms.QueueBrowser;
import jakarta.jms.Session;
import jakarta.jms.StreamMessage;
import jakarta.jms.TemporaryQueue;
import jakarta.jms.TemporaryTopic;
import jakarta.jms.TextMessage;
import jakarta.jms.Topic;
import java.lang.reflect.Method;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.qpid.jms.JmsConnectionFactory;

/** Qpid JMS against the broker at AMQP_URL, and RabbitMQ's client on the other side of the border. */
public class Jms {
    static final long DEADLINE = 20_000; // ms, a guard against hanging only
    static final long NOTHING = 300; // ms that are waited for what must not come

    final List<Connection> opened = new ArrayList<>();
    com.rabbitmq.client.Connection legacy;
    Channel channel;
    Connection connection;
    Session session;
    String name;

    public static void main(String[] arguments) throws Exception {
        int passed = 0;
        int failed = 0;
        List<Method> methods = new ArrayList<>(List.of(Jms.class.getDeclaredMethods()));
        methods.addAll(List.of(Delivery.class.getDeclaredMethods()));
        methods.sort((one, other) -> one.getName().compareTo(other.getName()));
        for (Method method : methods) {
            if (!method.getName().startsWith("test") || arguments.length > 0
                    && !Arrays.asList(arguments).contains(method.getName())) {
                continue;
            }
            Jms test = (Jms) method.getDeclaringClass().getDeclaredConstructor().newInstance();
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
                    if (line.getClassName().equals(method.getDeclaringClass().getName())) {
                        System.out.println("    at line " + line.getLineNumber());
                    }
                }
            }
        }
        System.out.println(passed + " passed, " + failed + " failed, 0 skipped");
        System.exit(failed == 0 ? 0 : 1);
    }

    static URI address() {
        return URI.create(Objects.requireNonNullElse(System.getenv("AMQP_URL"), "amqp://guest:guest@127.0.0.1:5672/"));
    }

    void setUp() throws Exception {
        name = "jms-" + UUID.randomUUID();
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost(address().getHost());
        factory.setPort(address().getPort());
        legacy = factory.newConnection();
        channel = legacy.createChannel();
        channel.queueDeclare(name, true, false, false, null);
        channel.exchangeDeclare(name + "-topic", "fanout", true);
        connection = connect(null);
        session = connection.createSession();
    }

    void tearDown() throws Exception {
        for (Connection each : opened) each.close();
        Channel own = legacy.createChannel();
        own.queueDelete(name);
        own.exchangeDelete(name + "-topic");
        legacy.close();
    }

    Connection connect(String client) throws JMSException {
        return connect(client, "");
    }

    Connection connect(String client, String options) throws JMSException {
        String uri = "amqp://" + address().getHost() + ":" + address().getPort() + "?jms.username=guest&jms.password=guest"
            + options;
        Connection made = new JmsConnectionFactory(uri).createConnection();
        opened.add(made);
        if (client != null) made.setClientID(client);
        made.start();
        return made;
    }

    Queue queue() throws JMSException {
        return session.createQueue(name);
    }

    Topic topic() throws JMSException {
        return session.createTopic(name + "-topic");
    }

    static Message receive(MessageConsumer consumer) throws JMSException {
        Message message = consumer.receive(DEADLINE);
        check(message != null, "a message was to come");
        return message;
    }

    static String text(MessageConsumer consumer) throws JMSException {
        return ((TextMessage) receive(consumer)).getText();
    }

    static void nothing(MessageConsumer consumer) throws JMSException {
        check(consumer.receive(NOTHING) == null, "no message was to come");
    }

    static void check(boolean right, String what) {
        if (!right) throw new AssertionError(what);
    }

    static void same(Object found, Object expected) {
        check(Objects.deepEquals(found, expected), "found " + found + " instead of " + expected);
    }

    void send(String... texts) throws JMSException {
        MessageProducer producer = session.createProducer(queue());
        for (String each : texts) producer.send(session.createTextMessage(each));
        producer.close();
    }

    long ready() throws Exception {
        return channel.messageCount(name);
    }

    void untilReady(long count) throws Exception {
        long end = System.currentTimeMillis() + DEADLINE;
        while (ready() != count && System.currentTimeMillis() < end) Thread.sleep(20);
        same(ready(), count);
    }

    // Messages.

    public void testHeadersAndProperties() throws Exception {
        TextMessage sent = session.createTextMessage("text");
        sent.setJMSCorrelationID("correlation");
        sent.setJMSType("type");
        sent.setJMSReplyTo(session.createQueue("reply"));
        sent.setBooleanProperty("boolean", true);
        sent.setByteProperty("byte", (byte) -5);
        sent.setShortProperty("short", (short) -300);
        sent.setIntProperty("int", 70_000);
        sent.setLongProperty("long", 1L << 40);
        sent.setFloatProperty("float", 1.5f);
        sent.setDoubleProperty("double", -2.25);
        sent.setStringProperty("string", "Grüße");
        MessageProducer producer = session.createProducer(queue());
        producer.send(sent, DeliveryMode.PERSISTENT, 7, 60_000);
        TextMessage got = (TextMessage) receive(session.createConsumer(queue()));
        same(got.getText(), "text");
        same(got.getJMSMessageID(), sent.getJMSMessageID());
        same(got.getJMSCorrelationID(), "correlation");
        same(got.getJMSType(), "type");
        same(((Queue) got.getJMSReplyTo()).getQueueName(), "reply");
        same(((Queue) got.getJMSDestination()).getQueueName(), name);
        same(got.getJMSTimestamp(), sent.getJMSTimestamp());
        same(got.getJMSExpiration(), sent.getJMSExpiration());
        same(got.getJMSPriority(), 7);
        same(got.getJMSDeliveryMode(), DeliveryMode.PERSISTENT);
        same(got.getJMSRedelivered(), false);
        same(got.getIntProperty("JMSXDeliveryCount"), 1);
        same(got.getObjectProperty("boolean"), true);
        same(got.getObjectProperty("byte"), (byte) -5);
        same(got.getObjectProperty("short"), (short) -300);
        same(got.getObjectProperty("int"), 70_000);
        same(got.getObjectProperty("long"), 1L << 40);
        same(got.getObjectProperty("float"), 1.5f);
        same(got.getObjectProperty("double"), -2.25);
        same(got.getObjectProperty("string"), "Grüße");
    }

    public void testTheFiveKindsOfMessages() throws Exception {
        MessageProducer producer = session.createProducer(queue());
        BytesMessage bytes = session.createBytesMessage();
        bytes.writeBytes(new byte[] {1, 2, 3});
        MapMessage map = session.createMapMessage();
        map.setString("s", "x");
        map.setLong("l", 5);
        map.setBytes("b", new byte[] {9});
        StreamMessage stream = session.createStreamMessage();
        stream.writeInt(5);
        stream.writeString("x");
        ObjectMessage object = session.createObjectMessage(new ArrayList<>(List.of("a", "b")));
        for (Message each : List.of(session.createTextMessage("t"), bytes, map, stream, object, session.createMessage())) {
            producer.send(each);
        }
        MessageConsumer consumer = session.createConsumer(queue());
        same(text(consumer), "t");
        byte[] read = new byte[3];
        ((BytesMessage) receive(consumer)).readBytes(read);
        same(read, new byte[] {1, 2, 3});
        MapMessage gotMap = (MapMessage) receive(consumer);
        same(gotMap.getString("s"), "x");
        same(gotMap.getLong("l"), 5L);
        same(gotMap.getBytes("b"), new byte[] {9});
        StreamMessage gotStream = (StreamMessage) receive(consumer);
        same(gotStream.readInt(), 5);
        same(gotStream.readString(), "x");
        same(((ObjectMessage) receive(consumer)).getObject(), List.of("a", "b"));
        Message plain = receive(consumer);
        check(!(plain instanceof TextMessage) && !(plain instanceof BytesMessage), "a message without a body");
    }

    public void testLargeMessages() throws Exception {
        byte[] content = new byte[20 << 20];
        for (int at = 0; at < content.length; at++) content[at] = (byte) (at * 31);
        BytesMessage sent = session.createBytesMessage();
        sent.writeBytes(content);
        session.createProducer(queue()).send(sent);
        BytesMessage got = (BytesMessage) receive(session.createConsumer(queue()));
        byte[] read = new byte[content.length];
        same(got.readBytes(read), content.length);
        check(Arrays.equals(read, content), "the same bytes");
    }

    public void testExpiry() throws Exception {
        MessageProducer producer = session.createProducer(queue());
        producer.setTimeToLive(1);
        producer.send(session.createTextMessage("gone"));
        producer.setTimeToLive(0);
        producer.send(session.createTextMessage("stays"));
        Thread.sleep(50);
        same(text(session.createConsumer(queue())), "stays");
    }

    public void testPriority() throws Exception {
        String queue = name + "-priority";
        channel.queueDeclare(queue, true, false, false, Map.of("x-max-priority", 9));
        try {
            MessageProducer producer = session.createProducer(session.createQueue(queue));
            for (int priority : new int[] {4, 0, 9}) {
                producer.setPriority(priority);
                producer.send(session.createTextMessage("" + priority));
            }
            MessageConsumer consumer = session.createConsumer(session.createQueue(queue));
            same(List.of(text(consumer), text(consumer), text(consumer)), List.of("9", "4", "0"));
            consumer.close();
        } finally {
            channel.queueDelete(queue);
        }
    }

    public void testDeliveryDelay() throws Exception {
        MessageProducer producer = session.createProducer(queue());
        producer.setDeliveryDelay(1500);
        long before = System.currentTimeMillis();
        producer.send(session.createTextMessage("later"));
        producer.setDeliveryDelay(0);
        producer.send(session.createTextMessage("now"));
        MessageConsumer consumer = session.createConsumer(queue());
        same(text(consumer), "now");
        same(text(consumer), "later");
        check(System.currentTimeMillis() - before >= 1400, "it came too early");
    }

    // Acknowledging.

    public void testAutoAcknowledge() throws Exception {
        send("1", "2");
        MessageConsumer consumer = session.createConsumer(queue());
        same(text(consumer), "1");
        same(text(consumer), "2");
        connection.close();
        untilReady(0);
    }

    public void testDupsOkAcknowledge() throws Exception {
        send("1", "2");
        Session dups = connection.createSession(Session.DUPS_OK_ACKNOWLEDGE);
        MessageConsumer consumer = dups.createConsumer(queue());
        same(text(consumer), "1");
        same(text(consumer), "2");
        consumer.close();
        untilReady(0);
    }

    public void testClientAcknowledgeAndRecover() throws Exception {
        send("1", "2", "3");
        Session client = connection.createSession(Session.CLIENT_ACKNOWLEDGE);
        MessageConsumer consumer = client.createConsumer(queue());
        same(text(consumer), "1");
        same(text(consumer), "2");
        client.recover();
        TextMessage again = (TextMessage) receive(consumer);
        same(again.getText(), "1");
        same(again.getJMSRedelivered(), true);
        same(again.getIntProperty("JMSXDeliveryCount"), 2);
        receive(consumer).acknowledge();
        same(text(consumer), "3");
        client.close();
        connection.close();
        untilReady(1);
    }

    public void testNoAcknowledgePresettled() throws Exception {
        Connection presettled = connect(null, "&jms.presettlePolicy.presettleAll=true");
        Session own = presettled.createSession();
        own.createProducer(queue()).send(own.createTextMessage("m"));
        same(text(own.createConsumer(queue())), "m");
        presettled.close();
        untilReady(0);
    }

    public void testWhatIsNotAcknowledgedComesAgain() throws Exception {
        send("1", "2", "3");
        Connection first = connect(null);
        same(text(first.createSession().createConsumer(queue())), "1");
        first.close();
        MessageConsumer consumer = session.createConsumer(queue());
        same(text(consumer), "2");
        same(text(consumer), "3");
    }

    public void testListenersAndAsynchronousSends() throws Exception {
        int count = 500;
        CountDownLatch sent = new CountDownLatch(count);
        CountDownLatch got = new CountDownLatch(count);
        List<String> order = Collections.synchronizedList(new ArrayList<>());
        Session listening = connection.createSession();
        listening.createConsumer(queue()).setMessageListener(message -> {
            try {
                order.add(message.getBody(String.class));
            } catch (JMSException error) {
                order.add(error.toString());
            }
            got.countDown();
        });
        MessageProducer producer = session.createProducer(queue());
        for (int number = 0; number < count; number++) {
            producer.send(session.createTextMessage("" + number), new jakarta.jms.CompletionListener() {
                public void onCompletion(Message message) {
                    sent.countDown();
                }

                public void onException(Message message, Exception error) {
                    error.printStackTrace();
                }
            });
        }
        check(sent.await(DEADLINE, TimeUnit.MILLISECONDS), "all sends complete");
        check(got.await(DEADLINE, TimeUnit.MILLISECONDS), "all messages come");
        for (int number = 0; number < count; number++) same(order.get(number), "" + number);
    }

    // Transactions.

    public void testTransactedSession() throws Exception {
        Session transacted = connection.createSession(Session.SESSION_TRANSACTED);
        MessageProducer producer = transacted.createProducer(queue());
        producer.send(transacted.createTextMessage("rolled back"));
        transacted.rollback();
        same(ready(), 0L);
        producer.send(transacted.createTextMessage("1"));
        producer.send(transacted.createTextMessage("2"));
        same(ready(), 0L);
        transacted.commit();
        untilReady(2);
        MessageConsumer consumer = transacted.createConsumer(queue());
        same(text(consumer), "1");
        transacted.rollback();
        TextMessage again = (TextMessage) receive(consumer);
        same(again.getText(), "1");
        same(again.getJMSRedelivered(), true);
        same(text(consumer), "2");
        transacted.commit();
        transacted.close();
        connection.close();
        untilReady(0);
    }

    public void testATransactionIsRolledBackWithItsConnection() throws Exception {
        send("1");
        Connection other = connect(null);
        Session transacted = other.createSession(Session.SESSION_TRANSACTED);
        transacted.createProducer(queue()).send(transacted.createTextMessage("never"));
        same(text(transacted.createConsumer(queue())), "1");
        other.close();
        MessageConsumer consumer = session.createConsumer(queue());
        same(text(consumer), "1");
        nothing(consumer);
    }

    // Queues.

    public void testSelectors() throws Exception {
        MessageProducer producer = session.createProducer(queue());
        for (int number = 0; number < 6; number++) {
            Message message = session.createTextMessage("" + number);
            message.setIntProperty("number", number);
            message.setStringProperty("kind", number % 2 == 0 ? "even" : "odd");
            producer.send(message);
        }
        MessageConsumer odd = session.createConsumer(queue(), "kind = 'odd' AND number BETWEEN 2 AND 9");
        same(List.of(text(odd), text(odd)), List.of("3", "5"));
        nothing(odd);
        MessageConsumer like = session.createConsumer(queue(), "kind LIKE 'ev_n' AND JMSPriority = 4 AND missing IS NULL");
        same(List.of(text(like), text(like), text(like)), List.of("0", "2", "4"));
        same(text(session.createConsumer(queue())), "1");
    }

    public void testASelectorThatMakesNoSense() throws Exception {
        try {
            session.createConsumer(queue(), "a = = b");
        } catch (InvalidSelectorException expected) {
            return;
        } catch (JMSException other) {
            check(other.getMessage().contains("amqp:invalid-field"), "found " + other);
            return;
        }
        throw new AssertionError("it was taken");
    }

    public void testBrowser() throws Exception {
        send("1", "2", "3");
        for (int round = 0; round < 2; round++) {
            QueueBrowser browser = session.createBrowser(queue());
            List<String> seen = new ArrayList<>();
            for (Object each : Collections.list(browser.getEnumeration())) seen.add(((TextMessage) each).getText());
            same(seen, List.of("1", "2", "3"));
            browser.close();
        }
        same(ready(), 3L);
        QueueBrowser picky = session.createBrowser(queue(), "FALSE");
        check(!picky.getEnumeration().hasMoreElements(), "it selects nothing");
    }

    public void testBrowserOfAnEmptyQueue() throws Exception {
        check(!session.createBrowser(queue()).getEnumeration().hasMoreElements(), "there is nothing");
    }

    public void testReceiveNoWait() throws Exception {
        MessageConsumer consumer = session.createConsumer(queue());
        check(consumer.receiveNoWait() == null, "there is nothing");
        send("1");
        same(text(consumer), "1");
        check(consumer.receiveNoWait() == null, "there is nothing more");
    }

    public void testZeroPrefetch() throws Exception {
        Connection pulling = connect(null, "&jms.prefetchPolicy.all=0");
        Session own = pulling.createSession();
        MessageConsumer consumer = own.createConsumer(queue());
        send("1", "2");
        same(((TextMessage) consumer.receive(DEADLINE)).getText(), "1");
        same(ready(), 1L);
        same(((TextMessage) consumer.receiveNoWait()).getText(), "2");
        check(consumer.receiveNoWait() == null, "there is nothing more");
    }

    public void testRequestAndReplyByATemporaryQueue() throws Exception {
        TemporaryQueue reply = session.createTemporaryQueue();
        MessageConsumer replies = session.createConsumer(reply);
        TextMessage request = session.createTextMessage("request");
        request.setJMSReplyTo(reply);
        session.createProducer(queue()).send(request);
        Session service = connect(null).createSession();
        Message got = receive(service.createConsumer(queue()));
        service.createProducer(null).send(got.getJMSReplyTo(), service.createTextMessage("reply"));
        same(text(replies), "reply");
        String address = reply.getQueueName();
        replies.close();
        reply.delete();
        try {
            service.createProducer(service.createQueue(address));
        } catch (JMSException expected) {
            return;
        }
        throw new AssertionError("the temporary queue is still there");
    }

    public void testATemporaryQueueIsForItsConnection() throws Exception {
        TemporaryQueue mine = session.createTemporaryQueue();
        Session other = connect(null).createSession();
        try {
            other.createConsumer(other.createQueue(mine.getQueueName()));
        } catch (JMSException expected) {
            return;
        }
        throw new AssertionError("somebody else consumes from it");
    }

    public void testNoSuchQueue() throws Exception {
        try {
            session.createProducer(session.createQueue(name + "-missing"));
        } catch (jakarta.jms.InvalidDestinationException expected) {
            return;
        }
        throw new AssertionError("there is no such queue");
    }

    public void testAnonymousProducer() throws Exception {
        MessageProducer producer = session.createProducer(null);
        producer.send(queue(), session.createTextMessage("m"));
        same(text(session.createConsumer(queue())), "m");
    }

    public void testGroups() throws Exception {
        TextMessage sent = session.createTextMessage("m");
        sent.setStringProperty("JMSXGroupID", "group");
        sent.setIntProperty("JMSXGroupSeq", 3);
        session.createProducer(queue()).send(sent);
        Message got = receive(session.createConsumer(queue()));
        same(got.getStringProperty("JMSXGroupID"), "group");
        same(got.getIntProperty("JMSXGroupSeq"), 3);
    }

    // Topics and subscriptions.

    public void testATopic() throws Exception {
        MessageConsumer one = session.createConsumer(topic());
        MessageConsumer other = session.createConsumer(topic(), "number > 1");
        MessageProducer producer = session.createProducer(topic());
        for (int number = 1; number < 4; number++) {
            Message message = session.createTextMessage("" + number);
            message.setIntProperty("number", number);
            producer.send(message);
        }
        same(List.of(text(one), text(one), text(one)), List.of("1", "2", "3"));
        same(List.of(text(other), text(other)), List.of("2", "3"));
        one.close();
        producer.send(session.createTextMessage("nobody"));
    }

    public void testANameWithinATopicExchange() throws Exception {
        MessageConsumer news = session.createConsumer(session.createTopic("amq.topic/" + name + ".*"));
        TextMessage typed = session.createTextMessage("typed");
        typed.setJMSType("not a routing key");
        session.createProducer(session.createTopic("amq.topic/" + name + ".a")).send(typed);
        session.createProducer(session.createTopic("amq.topic/other.a")).send(session.createTextMessage("other"));
        same(text(news), "typed");
        nothing(news);
    }

    public void testNoLocal() throws Exception {
        MessageConsumer deaf = session.createConsumer(topic(), null, true);
        session.createProducer(topic()).send(session.createTextMessage("mine"));
        Session other = connect(null).createSession();
        other.createProducer(topic()).send(other.createTextMessage("theirs"));
        same(text(deaf), "theirs");
        nothing(deaf);
    }

    public void testATemporaryTopic() throws Exception {
        TemporaryTopic temporary = session.createTemporaryTopic();
        MessageConsumer consumer = session.createConsumer(temporary);
        session.createProducer(temporary).send(session.createTextMessage("m"));
        same(text(consumer), "m");
        consumer.close();
        temporary.delete();
    }

    public void testADurableSubscription() throws Exception {
        Connection first = connect(name);
        Session own = first.createSession();
        MessageConsumer subscriber = own.createDurableSubscriber(topic(), "sub");
        MessageProducer producer = session.createProducer(topic());
        producer.send(session.createTextMessage("1"));
        same(text(subscriber), "1");
        first.close();
        producer.send(session.createTextMessage("2"));
        Session again = connect(name).createSession();
        subscriber = again.createDurableSubscriber(topic(), "sub");
        same(text(subscriber), "2");
        subscriber.close();
        again.unsubscribe("sub");
        producer.send(session.createTextMessage("3"));
        subscriber = again.createDurableSubscriber(topic(), "sub");
        nothing(subscriber);
        subscriber.close();
        again.unsubscribe("sub");
    }

    public void testAnotherSelectorIsAnotherSubscription() throws Exception {
        Session own = connect(name).createSession();
        own.createDurableSubscriber(topic(), "sub", "number = 1", false).close();
        MessageProducer producer = session.createProducer(topic());
        Message message = session.createTextMessage("1");
        message.setIntProperty("number", 1);
        producer.send(message);
        MessageConsumer changed = own.createDurableSubscriber(topic(), "sub", "number = 2", false);
        nothing(changed);
        message = session.createTextMessage("2");
        message.setIntProperty("number", 2);
        producer.send(message);
        same(text(changed), "2");
        changed.close();
        own.unsubscribe("sub");
    }

    public void testUnsubscribingWhatIsNotThere() throws Exception {
        try {
            connect(name).createSession().unsubscribe("nothing");
        } catch (jakarta.jms.InvalidDestinationException expected) {
            return;
        }
        throw new AssertionError("there is no such subscription");
    }

    void shared(boolean durable, String client) throws Exception {
        List<MessageConsumer> consumers = new ArrayList<>();
        Session own = connect(client).createSession();
        for (int number = 0; number < 3; number++) {
            Session each = number == 2 && client == null ? connect(null).createSession() : own;
            consumers.add(durable ? each.createSharedDurableConsumer(topic(), "shared" + name)
                : each.createSharedConsumer(topic(), "shared" + name));
        }
        MessageProducer producer = session.createProducer(topic());
        for (int number = 0; number < 30; number++) producer.send(session.createTextMessage("" + number));
        List<Integer> got = new ArrayList<>();
        for (MessageConsumer consumer : consumers) {
            for (int number = 0; number < 10; number++) got.add(Integer.parseInt(text(consumer)));
        }
        Collections.sort(got);
        for (int number = 0; number < 30; number++) same(got.get(number), number);
        for (MessageConsumer consumer : consumers) consumer.close();
        producer.send(session.createTextMessage("after"));
        MessageConsumer late = durable ? own.createSharedDurableConsumer(topic(), "shared" + name)
            : own.createSharedConsumer(topic(), "shared" + name);
        if (durable) same(text(late), "after");
        else nothing(late);
        late.close();
        if (durable) own.unsubscribe("shared" + name);
    }

    public void testASharedSubscription() throws Exception {
        shared(false, name);
    }

    public void testASharedDurableSubscription() throws Exception {
        shared(true, name);
    }

    public void testASharedSubscriptionOfNoClientId() throws Exception {
        shared(false, null);
    }

    public void testASharedDurableSubscriptionOfNoClientId() throws Exception {
        shared(true, null);
    }

    // Connections.

    public void testAClientIdIsTakenOnce() throws Exception {
        connect(name);
        try {
            connect(name);
        } catch (jakarta.jms.InvalidClientIDException expected) {
            return;
        }
        throw new AssertionError("two connections have the same client id");
    }

    public void testAWrongPassword() throws Exception {
        String uri = "amqp://" + address().getHost() + ":" + address().getPort();
        try {
            new JmsConnectionFactory("guest", "wrong", uri).createConnection().start();
        } catch (jakarta.jms.JMSSecurityException expected) {
            return;
        }
        throw new AssertionError("it was let in");
    }

    // Across the border.

    public void testMessagesToRabbitMqsClient() throws Exception {
        MessageProducer producer = session.createProducer(queue());
        TextMessage text = session.createTextMessage("Grüße");
        text.setStringProperty("p", "v");
        text.setJMSCorrelationID("c");
        producer.send(text);
        BytesMessage bytes = session.createBytesMessage();
        bytes.writeBytes(new byte[] {1, 2});
        producer.send(bytes);
        MapMessage map = session.createMapMessage();
        map.setInt("n", 5);
        producer.send(map);
        GetResponse got = channel.basicGet(name, true);
        same(new String(got.getBody(), StandardCharsets.UTF_8), "Grüße");
        same(got.getProps().getContentType(), "text/plain");
        same(got.getProps().getCorrelationId(), "c");
        same(got.getProps().getDeliveryMode(), 2);
        same(got.getProps().getHeaders().get("p").toString(), "v");
        got = channel.basicGet(name, true);
        same(got.getBody(), new byte[] {1, 2});
        same(got.getProps().getContentType(), "application/octet-stream");
        got = channel.basicGet(name, true);
        same(got.getProps().getContentType(), "amqp/map");
    }

    public void testAllKindsOfMessagesThereAndBack() throws Exception {
        MessageProducer producer = session.createProducer(queue());
        MapMessage map = session.createMapMessage();
        map.setInt("n", 5);
        StreamMessage stream = session.createStreamMessage();
        stream.writeShort((short) 7);
        ObjectMessage object = session.createObjectMessage("object");
        BytesMessage bytes = session.createBytesMessage();
        bytes.writeInt(9);
        for (Message each : List.of(session.createTextMessage("text"), map, stream, object, bytes)) producer.send(each);
        for (int number = 0; number < 5; number++) { // RabbitMQ's client sends them on as they are
            GetResponse got = channel.basicGet(name, true);
            channel.basicPublish("", name, got.getProps(), got.getBody());
        }
        MessageConsumer consumer = session.createConsumer(queue());
        same(text(consumer), "text");
        same(((MapMessage) receive(consumer)).getInt("n"), 5);
        same(((StreamMessage) receive(consumer)).readShort(), (short) 7);
        same(((ObjectMessage) receive(consumer)).getObject(), "object");
        same(((BytesMessage) receive(consumer)).readInt(), 9);
    }

    public void testMessagesFromRabbitMqsClient() throws Exception {
        channel.basicPublish("", name, new AMQP.BasicProperties.Builder().contentType("text/plain").messageId("m")
            .correlationId("c").replyTo("r").type("t").priority(6).deliveryMode(2).headers(Map.of("n", 5, "s", "x"))
            .build(), "text".getBytes(StandardCharsets.UTF_8));
        channel.basicPublish("", name, null, new byte[] {1, 2});
        MessageConsumer consumer = session.createConsumer(queue(), null);
        TextMessage text = (TextMessage) receive(consumer);
        same(text.getText(), "text");
        same(text.getJMSCorrelationID(), "c");
        same(text.getJMSType(), "t");
        same(text.getJMSPriority(), 6);
        same(text.getJMSDeliveryMode(), DeliveryMode.PERSISTENT);
        same(text.getIntProperty("n"), 5);
        same(text.getStringProperty("s"), "x");
        same(((Queue) text.getJMSReplyTo()).getQueueName(), "r");
        check(receive(consumer) instanceof BytesMessage, "bytes without a content type");
    }
}
