import java.io.Serializable;
import java.util.UUID;
import javax.jms.BytesMessage;
import javax.jms.Connection;
import javax.jms.DeliveryMode;
import javax.jms.JMSException;
import javax.jms.MapMessage;
import javax.jms.Message;
import javax.jms.MessageConsumer;
import javax.jms.MessageProducer;
import javax.jms.Queue;
import javax.jms.QueueBrowser;
import javax.jms.Session;
import javax.jms.StreamMessage;
import javax.jms.TemporaryQueue;
import javax.jms.TextMessage;
import javax.jms.Topic;
import javax.jms.XAConnection;
import javax.jms.XASession;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;
import org.apache.qpid.client.AMQConnectionFactory;
import org.apache.qpid.client.AMQAnyDestination;
import org.apache.qpid.client.AMQConnection;

/** Conversations of Qpid's JMS client for AMQP 0-10 to be recorded: {@code Conversations HOST:PORT NAME}. */
public class Conversations {
    static final long DEADLINE = 10_000; // ms
    final String url;

    Conversations(String peer) {
        String vhost = System.getenv().getOrDefault("PEER_VHOST", "");
        url = "amqp://guest:guest@capture/" + vhost + "?brokerlist='tcp://" + peer + "'";
    }

    public static void main(String[] arguments) throws Exception {
        Conversations talk = new Conversations(arguments[0]);
        Conversations.class.getDeclaredMethod(arguments[1]).invoke(talk);
        System.exit(0);
    }

    Connection connect() throws Exception {
        Connection connection = new AMQConnectionFactory(url).createConnection();
        connection.start();
        return connection;
    }

    static Queue queue(Session session, String name) throws JMSException {
        return session.createQueue("BURL:direct://amq.direct/" + name + "/" + name + "?durable='false'&autodelete='true'");
    }

    /** Text, bytes, map, stream and object messages with properties, headers and a reply-to; auto-acknowledge. */
    void messages() throws Exception {
        Connection connection = connect();
        Session session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        Queue queue = queue(session, "cap.jms");
        MessageConsumer consumer = session.createConsumer(queue);
        MessageProducer producer = session.createProducer(queue);
        TextMessage text = session.createTextMessage("gr\u00fcn");
        text.setStringProperty("colour", "red");
        text.setIntProperty("number", 7);
        text.setLongProperty("long", 1L << 40);
        text.setDoubleProperty("double", 1.5);
        text.setFloatProperty("float", 2.5f);
        text.setBooleanProperty("yes", true);
        text.setByteProperty("byte", (byte) -1);
        text.setShortProperty("short", (short) -300);
        text.setJMSCorrelationID("correlation");
        text.setJMSType("a type");
        text.setJMSReplyTo(queue);
        BytesMessage bytes = session.createBytesMessage();
        bytes.writeBytes(new byte[] {0, 1, (byte) 255});
        MapMessage map = session.createMapMessage();
        map.setString("text", "x");
        map.setInt("int", 1);
        map.setBytes("bytes", new byte[] {1, 2});
        map.setChar("char", 'c');
        StreamMessage stream = session.createStreamMessage();
        stream.writeInt(1);
        stream.writeString("two");
        Serializable object = UUID.fromString("00000000-0000-0000-0000-000000000001");
        producer.send(text, DeliveryMode.NON_PERSISTENT, 7, 60_000);
        producer.send(bytes, DeliveryMode.PERSISTENT, 4, 0);
        producer.send(map);
        producer.send(stream);
        producer.send(session.createObjectMessage(object));
        producer.send(session.createMessage());
        for (int i = 0; i < 6; i++) {
            if (consumer.receive(DEADLINE) == null) throw new AssertionError("message " + i + " was to come");
        }
        connection.close();
    }

    /** A durable subscription with a selector, left and taken up again, unsubscribed. */
    void durable() throws Exception {
        Connection connection = connect();
        Session session = connection.createSession(false, Session.CLIENT_ACKNOWLEDGE);
        Topic topic = session.createTopic("cap.topic");
        session.createDurableSubscriber(topic, "mine", "colour = 'red'", false).close();
        MessageProducer producer = session.createProducer(topic);
        for (String colour : new String[] {"red", "green"}) {
            TextMessage message = session.createTextMessage(colour);
            message.setStringProperty("colour", colour);
            producer.send(message);
        }
        MessageConsumer again = session.createDurableSubscriber(topic, "mine", "colour = 'red'", false);
        Message message = again.receive(DEADLINE);
        message.acknowledge();
        again.close();
        session.unsubscribe("mine");
        connection.close();
    }

    /** A transacted session: commit, rollback, redelivery; a browser; a temporary queue. */
    void transacted() throws Exception {
        Connection connection = connect();
        Session session = connection.createSession(true, Session.SESSION_TRANSACTED);
        Queue queue = queue(session, "cap.jmstx");
        MessageConsumer consumer = session.createConsumer(queue);
        MessageProducer producer = session.createProducer(queue);
        producer.send(session.createTextMessage("kept"));
        session.commit();
        if (consumer.receive(DEADLINE) == null) throw new AssertionError("was to come");
        session.rollback();
        if (!consumer.receive(DEADLINE).getJMSRedelivered()) throw new AssertionError("was to come again");
        session.commit();
        Session plain = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        TemporaryQueue temporary = plain.createTemporaryQueue();
        plain.createProducer(temporary).send(plain.createTextMessage("seen"));
        QueueBrowser browser = plain.createBrowser(temporary);
        if (!browser.getEnumeration().hasMoreElements()) throw new AssertionError("nothing to browse");
        browser.close();
        connection.close();
    }

    /** An XA session: start, end, prepare, recover, commit; rollback of another branch; one-phase commit. */
    void xa() throws Exception {
        XAConnection connection = new org.apache.qpid.client.AMQConnectionFactory(url).createXAConnection();
        connection.start();
        XASession session = connection.createXASession();
        XAResource resource = session.getXAResource();
        Queue queue = session.createQueue("BURL:direct://amq.direct/cap.xa/cap.xa?durable='false'&autodelete='true'");
        MessageConsumer consumer = session.createConsumer(queue);
        MessageProducer producer = session.createProducer(queue);
        Xid one = new Branch("1");
        resource.start(one, XAResource.TMNOFLAGS);
        producer.send(session.createTextMessage("prepared"));
        resource.end(one, XAResource.TMSUCCESS);
        resource.prepare(one);
        if (resource.recover(XAResource.TMSTARTRSCAN).length != 1) throw new AssertionError("one branch is prepared");
        resource.commit(one, false);
        Xid two = new Branch("2");
        resource.start(two, XAResource.TMNOFLAGS);
        if (consumer.receive(DEADLINE) == null) throw new AssertionError("was to come");
        resource.end(two, XAResource.TMSUCCESS);
        resource.prepare(two);
        resource.rollback(two);
        Xid three = new Branch("3");
        resource.start(three, XAResource.TMNOFLAGS);
        producer.send(session.createTextMessage("at once"));
        resource.end(three, XAResource.TMSUCCESS);
        resource.commit(three, true);
        connection.close();
    }

    /** A message of 300,000 bytes, in frames as large as the broker allows. */
    void large() throws Exception {
        Connection connection = connect();
        Session session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        Queue queue = queue(session, "cap.jmslarge");
        MessageConsumer consumer = session.createConsumer(queue);
        BytesMessage bytes = session.createBytesMessage();
        bytes.writeBytes(new byte[300_000]);
        session.createProducer(queue).send(bytes);
        BytesMessage got = (BytesMessage) consumer.receive(DEADLINE);
        if (got.getBodyLength() != 300_000) throw new AssertionError("size " + got.getBodyLength());
        connection.close();
    }

    /** Address strings: a queue created with options, a subject on a topic, an address that is not there. */
    void addresses() throws Exception {
        Connection connection = connect();
        Session session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        javax.jms.Destination made = new AMQAnyDestination("ADDR:cap.addr; {create: always, delete: always, node: {type: queue,"
            + " x-declare: {arguments: {'qpid.max_count': 10}}, x-bindings: [{exchange: 'amq.topic', key: 'a.#'}]}}");
        MessageConsumer consumer = session.createConsumer(made);
        session.createProducer(new AMQAnyDestination("ADDR:amq.topic/a.b")).send(session.createTextMessage("by subject"));
        if (consumer.receive(DEADLINE) == null) throw new AssertionError("was to come");
        consumer.close();
        try {
            session.createConsumer(new AMQAnyDestination("ADDR:cap.none"));
            throw new AssertionError("must not be found");
        } catch (JMSException expected) {
            System.err.println(expected.getMessage());
        }
        connection.close();
    }

    /** A transaction's branch. */
    static class Branch implements Xid {
        final String branch;

        Branch(String branch) {
            this.branch = branch;
        }

        public int getFormatId() {
            return 1;
        }

        public byte[] getGlobalTransactionId() {
            return "capture".getBytes();
        }

        public byte[] getBranchQualifier() {
            return branch.getBytes();
        }
    }
}
