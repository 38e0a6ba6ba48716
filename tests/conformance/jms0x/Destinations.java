import java.util.Collections;
import java.util.Enumeration;
import javax.jms.Connection;
import javax.jms.DeliveryMode;
import javax.jms.Destination;
import javax.jms.InvalidDestinationException;
import javax.jms.InvalidSelectorException;
import javax.jms.Message;
import javax.jms.MessageConsumer;
import javax.jms.MessageProducer;
import javax.jms.Queue;
import javax.jms.QueueBrowser;
import javax.jms.Session;
import javax.jms.TemporaryQueue;
import javax.jms.TemporaryTopic;
import javax.jms.TextMessage;
import javax.jms.Topic;
import javax.jms.TopicSubscriber;
import org.apache.qpid.client.AMQAnyDestination;
import org.apache.qpid.client.AMQConnectionFactory;

/** Queues and topics, subscriptions, selectors, browsers, addresses of both kinds, and what is not there. */
public class Destinations extends Jms0x {

    void coloured(MessageProducer producer, String... colours) throws Exception {
        for (String colour : colours) {
            TextMessage message = session.createTextMessage(colour);
            message.setStringProperty("colour", colour);
            message.setIntProperty("size", colour.length());
            producer.send(message);
        }
    }

    public void testSubscribersOfATopic() throws Exception {
        MessageConsumer one = session.createConsumer(topic());
        MessageConsumer two = connect().createSession(false, Session.AUTO_ACKNOWLEDGE).createConsumer(topic());
        send(session.createProducer(topic()), "news");
        equal("news", text(one));
        equal("news", text(two));
    }

    public void testTopicPatterns() throws Exception {
        MessageConsumer words = session.createConsumer(session.createTopic("BURL:topic://amq.topic/" + name + ".*/"));
        MessageConsumer all = session.createConsumer(session.createTopic("BURL:topic://amq.topic/" + name + ".#/"));
        Session other = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        for (String key : new String[] {".uk", ".uk.london"}) {
            send(other.createProducer(other.createTopic("BURL:topic://amq.topic/" + name + key + "/")), key);
        }
        equal(".uk", text(words));
        nothing(words);
        equal(".uk", text(all));
        equal(".uk.london", text(all));
    }

    public void testNoLocal() throws Exception {
        MessageConsumer own = session.createConsumer(topic(), null, true);
        MessageConsumer any = session.createConsumer(topic());
        send(session.createProducer(topic()), "own");
        equal("own", text(any));
        nothing(own);
    }

    public void testDurableSubscription() throws Exception {
        Topic topic = topic();
        session.createDurableSubscriber(topic, name + "-sub").close();
        send(session.createProducer(topic), "one");
        connection.close();
        Session later = connect().createSession(false, Session.AUTO_ACKNOWLEDGE);
        TopicSubscriber subscriber = later.createDurableSubscriber(topic, name + "-sub");
        equal("one", text(subscriber));
        subscriber.close();
        later.unsubscribe(name + "-sub");
        refused(() -> later.unsubscribe(name + "-sub"));
    }

    public void testDurableSubscriptionInUse() throws Exception {
        TopicSubscriber subscriber = session.createDurableSubscriber(topic(), name + "-sub");
        Session other = connect().createSession(false, Session.AUTO_ACKNOWLEDGE);
        refused(() -> other.createDurableSubscriber(topic(), name + "-sub"));
        subscriber.close();
        session.unsubscribe(name + "-sub");
    }

    public void testDurableSubscriptionWithSelector() throws Exception {
        session.createDurableSubscriber(topic(), name + "-sub", "colour = 'red'", false).close();
        coloured(session.createProducer(topic()), "green", "red");
        TopicSubscriber subscriber = session.createDurableSubscriber(topic(), name + "-sub", "colour = 'red'", false);
        equal("red", text(subscriber));
        nothing(subscriber);
        subscriber.close();
        session.unsubscribe(name + "-sub");
    }

    public void testSelectors() throws Exception {
        MessageConsumer red = session.createConsumer(queue(), "colour = 'red'");
        MessageConsumer rest = session.createConsumer(queue(), "size BETWEEN 4 AND 5 OR colour LIKE 'blac_'");
        coloured(session.createProducer(queue()), "red", "green", "black", "blue");
        equal("red", text(red));
        equal("green", text(rest));
        equal("black", text(rest));
        equal("blue", text(rest));
    }

    public void testSelectorOnHeaders() throws Exception {
        MessageConsumer urgent = session.createConsumer(queue(), "JMSPriority > 5 AND JMSType = 'alarm'");
        MessageProducer producer = session.createProducer(queue());
        for (int priority : new int[] {3, 8}) {
            Message message = session.createTextMessage("p" + priority);
            message.setJMSType("alarm");
            producer.send(message, DeliveryMode.NON_PERSISTENT, priority, 0);
        }
        equal("p8", text(urgent));
        nothing(urgent);
    }

    public void testSelectorThatIsWrong() throws Exception {
        check(refused(() -> session.createConsumer(queue(), "colour = = 'red'")) instanceof InvalidSelectorException,
            "an InvalidSelectorException");
    }

    public void testBrowser() throws Exception {
        MessageConsumer declaring = session.createConsumer(queue(), "colour = 'none'");
        coloured(session.createProducer(queue()), "red", "green", "red");
        Session looking = connect().createSession(false, Session.AUTO_ACKNOWLEDGE);
        QueueBrowser browser = looking.createBrowser(queue());
        equal(3, Collections.list(browser.getEnumeration()).size());
        browser.close();
        QueueBrowser red = looking.createBrowser(queue(), "colour = 'red'");
        Enumeration<?> seen = red.getEnumeration();
        equal("red", ((TextMessage) seen.nextElement()).getText());
        equal("red", ((TextMessage) seen.nextElement()).getText());
        equal(false, seen.hasMoreElements());
        red.close();
        MessageConsumer consumer = looking.createConsumer(queue());
        for (String colour : new String[] {"red", "green", "red"}) equal(colour, text(consumer));
        declaring.close();
    }

    public void testTemporaryQueue() throws Exception {
        TemporaryQueue temporary = session.createTemporaryQueue();
        MessageConsumer consumer = session.createConsumer(temporary);
        send(session.createProducer(temporary), "x");
        equal("x", text(consumer));
        refused(temporary::delete);
        consumer.close();
        temporary.delete();
    }

    public void testTemporaryQueueOfAnotherConnection() throws Exception {
        TemporaryQueue temporary = session.createTemporaryQueue();
        Session other = connect().createSession(false, Session.AUTO_ACKNOWLEDGE);
        refused(() -> other.createConsumer(temporary));
    }

    public void testTemporaryTopic() throws Exception {
        TemporaryTopic temporary = session.createTemporaryTopic();
        MessageConsumer consumer = session.createConsumer(temporary);
        send(session.createProducer(temporary), "x");
        equal("x", text(consumer));
        consumer.close();
        temporary.delete();
    }

    public void testPriorityQueue() throws Exception {
        Queue queue = session.createQueue("ADDR:" + name + "; {create: always, delete: always, node: {x-declare:"
            + " {arguments: {'x-qpid-priorities': 10}}}}");
        MessageProducer producer = session.createProducer(queue);
        for (int priority : new int[] {1, 9, 5}) {
            producer.send(session.createTextMessage("p" + priority), DeliveryMode.NON_PERSISTENT, priority, 0);
        }
        Session later = connect(peer(), "&maxprefetch='1'").createSession(false, Session.AUTO_ACKNOWLEDGE);
        MessageConsumer consumer = later.createConsumer(session.createQueue("ADDR:" + name));
        for (String expected : new String[] {"p9", "p5", "p1"}) equal(expected, text(consumer));
        consumer.close();
        producer.close();
    }

    public void testHeadersExchange() throws Exception {
        Destination matching = new AMQAnyDestination("ADDR:" + name + "; {create: always, delete: always,"
            + " node: {x-bindings: [{exchange: 'amq.match', key: k, arguments: {'x-match': all, colour: red}}]}}");
        MessageConsumer consumer = session.createConsumer(matching);
        MessageProducer producer = session.createProducer(new AMQAnyDestination("ADDR:amq.match"));
        coloured(producer, "green", "red");
        equal("red", text(consumer));
        nothing(consumer);
        consumer.close();
    }

    public void testAddressThatCreatesAndDeletes() throws Exception {
        Destination made = new AMQAnyDestination("ADDR:" + name + "; {create: always, delete: always,"
            + " node: {type: queue, x-bindings: [{exchange: 'amq.topic', key: '" + name + ".#'}]}}");
        MessageConsumer consumer = session.createConsumer(made);
        send(session.createProducer(new AMQAnyDestination("ADDR:amq.topic/" + name + ".sub")), "by subject");
        send(session.createProducer(made), "by name");
        equal("by subject", text(consumer));
        equal("by name", text(consumer));
        consumer.close();
        refused(() -> session.createConsumer(new AMQAnyDestination("ADDR:" + name)));
    }

    public void testAddressOfATopicExchangeThatIsCreated() throws Exception {
        Destination made = new AMQAnyDestination("ADDR:" + name + "/news.*; {create: always, delete: always,"
            + " node: {type: topic, x-declare: {type: topic}}}");
        MessageConsumer consumer = session.createConsumer(made);
        MessageProducer producer = session.createProducer(new AMQAnyDestination("ADDR:" + name + "/news.uk"));
        send(producer, "x");
        Message message = receive(consumer);
        equal("x", ((TextMessage) message).getText());
        producer.close();
        consumer.close();
    }

    public void testAddressThatIsAsserted() throws Exception {
        session.createConsumer(queue());
        String address = "ADDR:" + name + "; {assert: always, node: {type: topic}}";
        refused(() -> session.createConsumer(new AMQAnyDestination(address)));
    }

    public void testAddressThatBrowses() throws Exception {
        MessageConsumer declaring = session.createConsumer(queue(), "colour = 'none'");
        send(session.createProducer(queue()), "one", "two");
        Session looking = connect().createSession(false, Session.AUTO_ACKNOWLEDGE);
        MessageConsumer browsing = looking.createConsumer(new AMQAnyDestination("ADDR:" + name + "; {mode: browse}"));
        equal("one", text(browsing));
        equal("two", text(browsing));
        browsing.close();
        equal("one", text(looking.createConsumer(queue())));
        declaring.close();
    }

    public void testAddressThatIsNotThere() throws Exception {
        for (String address : new String[] {"ADDR:" + name, "ADDR:" + name + "/subject"}) {
            refused(() -> session.createConsumer(new AMQAnyDestination(address)));
            refused(() -> session.createProducer(new AMQAnyDestination(address)));
        }
        equal("works still", ((TextMessage) sent("works still")).getText());
    }

    Message sent(String text) throws Exception {
        MessageConsumer consumer = session.createConsumer(queue());
        send(session.createProducer(queue()), text);
        return receive(consumer);
    }

    public void testQueueOfABindingUrlWithOptions() throws Exception {
        Queue queue = session.createQueue("BURL:direct://amq.direct/" + name + "/" + name
            + "?durable='false'&autodelete='true'&exclusive='true'&routingkey='" + name + "-key'");
        MessageConsumer consumer = session.createConsumer(queue);
        send(session.createProducer(queue), "x");
        equal("x", text(consumer));
        Session other = connect().createSession(false, Session.AUTO_ACKNOWLEDGE);
        refused(() -> other.createConsumer(queue));
    }

    public void testPublisherToAnExchangeThatIsNotThere() throws Exception {
        Destination unknown = session.createQueue("BURL:direct://" + name + "//" + name);
        System.setProperty("qpid.declare_exchanges", "false");
        try {
            Connection careless = connect(peer(), "&failover='nofailover'");
            Session its = careless.createSession(true, Session.SESSION_TRANSACTED);
            refused(() -> {
                its.createProducer(unknown).send(its.createTextMessage("x"));
                its.commit();
            });
        } finally {
            System.clearProperty("qpid.declare_exchanges");
        }
    }

    public void testDestinationThatIsNone() throws Exception {
        check(refused(() -> session.createConsumer(null)) instanceof InvalidDestinationException, "InvalidDestination");
    }

    public void testCredentialsThatAreWrong() throws Exception {
        String url = "amqp://guest:wrong@c/?brokerlist='tcp://" + peer() + "'&failover='nofailover'";
        refused(() -> new AMQConnectionFactory(url).createConnection());
    }
}
