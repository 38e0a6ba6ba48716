import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import javax.jms.BytesMessage;
import javax.jms.DeliveryMode;
import javax.jms.MapMessage;
import javax.jms.Message;
import javax.jms.MessageConsumer;
import javax.jms.MessageProducer;
import javax.jms.ObjectMessage;
import javax.jms.Queue;
import javax.jms.Session;
import javax.jms.StreamMessage;
import javax.jms.TemporaryQueue;
import javax.jms.TextMessage;
import org.apache.qpid.jms.ListMessage;

/** What is in messages: the kinds of JMS, properties of all types, headers, sizes. */
public class Contents extends Jms0x {

    Message through(Message message) throws Exception {
        MessageConsumer consumer = session.createConsumer(queue());
        session.createProducer(queue()).send(message);
        return receive(consumer);
    }

    public void testText() throws Exception {
        for (String text : new String[] {"gr\u00fcn \u4e2d \ud83d\ude00", "", "x".repeat(70_000)}) {
            MessageConsumer consumer = session.createConsumer(queue());
            session.createProducer(queue()).send(session.createTextMessage(text));
            equal(text, text(consumer));
            consumer.close();
        }
    }

    public void testTextThatIsNull() throws Exception {
        equal(null, ((TextMessage) through(session.createTextMessage())).getText());
    }

    public void testBytes() throws Exception {
        BytesMessage message = session.createBytesMessage();
        byte[] content = new byte[256];
        for (int i = 0; i < 256; i++) content[i] = (byte) i;
        message.writeBytes(content);
        message.writeUTF("end");
        message.writeDouble(1.5);
        BytesMessage got = (BytesMessage) through(message);
        byte[] found = new byte[256];
        equal(256, got.readBytes(found));
        check(Arrays.equals(content, found), "the bytes");
        equal("end", got.readUTF());
        equal(1.5, got.readDouble());
    }

    public void testMap() throws Exception {
        MapMessage message = session.createMapMessage();
        message.setBoolean("boolean", true);
        message.setByte("byte", (byte) -7);
        message.setShort("short", Short.MIN_VALUE);
        message.setChar("char", 'c');
        message.setInt("int", Integer.MIN_VALUE);
        message.setLong("long", Long.MAX_VALUE);
        message.setFloat("float", 1.5f);
        message.setDouble("double", -2.25);
        message.setString("string", "gr\u00fcn");
        message.setBytes("bytes", new byte[] {1, -1});
        message.setString("null", null);
        MapMessage got = (MapMessage) through(message);
        equal(true, got.getBoolean("boolean"));
        equal((byte) -7, got.getByte("byte"));
        equal(Short.MIN_VALUE, got.getShort("short"));
        equal('c', got.getChar("char"));
        equal(Integer.MIN_VALUE, got.getInt("int"));
        equal(Long.MAX_VALUE, got.getLong("long"));
        equal(1.5f, got.getFloat("float"));
        equal(-2.25, got.getDouble("double"));
        equal("gr\u00fcn", got.getString("string"));
        check(Arrays.equals(new byte[] {1, -1}, got.getBytes("bytes")), "the bytes");
        equal(null, got.getString("null"));
        equal(11, Collections.list(got.getMapNames()).size());
    }

    public void testMapWithin() throws Exception {
        MapMessage message = session.createMapMessage();
        Map<String, Object> inner = new HashMap<>();
        inner.put("list", new ArrayList<Object>(List.of(1, "two", 3L)));
        message.setObject("inner", inner);
        message.setObject("id", UUID.fromString("00000000-0000-0000-0000-000000000007"));
        MapMessage got = (MapMessage) through(message);
        equal(inner, got.getObject("inner"));
        equal(UUID.fromString("00000000-0000-0000-0000-000000000007"), got.getObject("id"));
    }

    public void testStream() throws Exception {
        StreamMessage message = session.createStreamMessage();
        message.writeBoolean(true);
        message.writeByte((byte) 1);
        message.writeShort((short) 2);
        message.writeChar('c');
        message.writeInt(3);
        message.writeLong(4);
        message.writeFloat(5.5f);
        message.writeDouble(6.5);
        message.writeString("seven");
        message.writeObject(null);
        message.writeBytes(new byte[] {8, 9});
        StreamMessage got = (StreamMessage) through(message);
        Object[] expected = {true, (byte) 1, (short) 2, 'c', 3, 4L, 5.5f, 6.5, "seven", null};
        for (Object each : expected) equal(each, got.readObject());
        check(Arrays.equals(new byte[] {8, 9}, (byte[]) got.readObject()), "the bytes");
    }

    public void testObject() throws Exception {
        Serializable object = new HashMap<>(Map.of("key", new ArrayList<>(List.of(1, 2, 3))));
        equal(object, ((ObjectMessage) through(session.createObjectMessage(object))).getObject());
    }

    public void testListMessage() throws Exception {
        ListMessage message = ((org.apache.qpid.jms.Session) session).createListMessage();
        message.add(1);
        message.add("two");
        message.add(new HashMap<>(Map.of("three", 3L)));
        ListMessage got = (ListMessage) through(message);
        equal(List.of(1, "two", Map.of("three", 3L)), got.asList());
    }

    public void testMessageWithoutBody() throws Exception {
        Message message = session.createMessage();
        message.setStringProperty("only", "this");
        equal("this", through(message).getStringProperty("only"));
    }

    public void testProperties() throws Exception {
        Message message = session.createTextMessage("x");
        message.setBooleanProperty("boolean", true);
        message.setByteProperty("byte", (byte) -128);
        message.setShortProperty("short", (short) -300);
        message.setIntProperty("int", 70_000);
        message.setLongProperty("long", 1L << 40);
        message.setFloatProperty("float", 1.25f);
        message.setDoubleProperty("double", Math.PI);
        message.setStringProperty("string", "gr\u00fcn");
        message.setStringProperty("empty", "");
        message.setStringProperty("long_text", "y".repeat(40_000));
        Message got = through(message);
        equal(true, got.getObjectProperty("boolean"));
        equal((byte) -128, got.getObjectProperty("byte"));
        equal((short) -300, got.getObjectProperty("short"));
        equal(70_000, got.getObjectProperty("int"));
        equal(1L << 40, got.getObjectProperty("long"));
        equal(1.25f, got.getObjectProperty("float"));
        equal(Math.PI, got.getObjectProperty("double"));
        equal("gr\u00fcn", got.getObjectProperty("string"));
        equal("", got.getObjectProperty("empty"));
        equal("y".repeat(40_000), got.getObjectProperty("long_text"));
    }

    public void testHeaders() throws Exception {
        MessageConsumer consumer = session.createConsumer(queue());
        MessageProducer producer = session.createProducer(queue());
        TextMessage message = session.createTextMessage("x");
        message.setJMSCorrelationID("the correlation");
        message.setJMSType("the type");
        message.setStringProperty("JMSXGroupID", "group");
        long before = System.currentTimeMillis();
        producer.send(message, DeliveryMode.PERSISTENT, 8, 60_000);
        Message got = receive(consumer);
        equal(message.getJMSMessageID(), got.getJMSMessageID());
        check(got.getJMSMessageID().startsWith("ID:"), "an id");
        equal("the correlation", got.getJMSCorrelationID());
        equal("the type", got.getJMSType());
        equal("group", got.getStringProperty("JMSXGroupID"));
        equal(DeliveryMode.PERSISTENT, got.getJMSDeliveryMode());
        equal(8, got.getJMSPriority());
        check(Math.abs(got.getJMSTimestamp() - before) < 30_000, "the time of sending");
        check(got.getJMSExpiration() > before + 30_000, "when it expires, and not " + got.getJMSExpiration());
        equal(false, got.getJMSRedelivered());
        check(got.getJMSDestination().toString().contains(name), "a destination, and not " + got.getJMSDestination());
    }

    public void testNonPersistent() throws Exception {
        MessageConsumer consumer = session.createConsumer(queue());
        MessageProducer producer = session.createProducer(queue());
        producer.setDeliveryMode(DeliveryMode.NON_PERSISTENT);
        producer.setDisableMessageID(true);
        producer.setDisableMessageTimestamp(true);
        send(producer, "x");
        equal(DeliveryMode.NON_PERSISTENT, receive(consumer).getJMSDeliveryMode());
    }

    public void testCorrelationIdOfBytes() throws Exception {
        Message message = session.createMessage();
        message.setJMSCorrelationIDAsBytes("bytes".getBytes(StandardCharsets.UTF_8));
        equal("bytes", new String(through(message).getJMSCorrelationIDAsBytes(), StandardCharsets.UTF_8));
    }

    public void testTimeToLive() throws Exception {
        Queue kept = session.createQueue("BURL:direct://amq.direct/" + name + "/" + name);
        session.createConsumer(kept).close();
        MessageProducer producer = session.createProducer(kept);
        producer.send(session.createTextMessage("dies"), DeliveryMode.NON_PERSISTENT, 4, 50);
        producer.send(session.createTextMessage("lives"), DeliveryMode.NON_PERSISTENT, 4, 60_000);
        Thread.sleep(200);
        equal("lives", text(session.createConsumer(kept)));
        ((org.apache.qpid.jms.Session) session).deleteQueue(name);
    }

    public void testFiveMebibytes() throws Exception {
        byte[] content = new byte[5 * 1024 * 1024];
        for (int i = 0; i < content.length; i++) content[i] = (byte) (i * 31);
        BytesMessage message = session.createBytesMessage();
        message.writeBytes(content);
        BytesMessage got = (BytesMessage) through(message);
        byte[] found = new byte[content.length];
        equal((long) content.length, got.getBodyLength());
        equal(content.length, got.readBytes(found));
        check(Arrays.equals(content, found), "the bytes");
    }

    public void testManyInOrder() throws Exception {
        MessageConsumer consumer = session.createConsumer(queue());
        MessageProducer producer = session.createProducer(queue());
        for (int i = 0; i < 2000; i++) producer.send(session.createTextMessage(String.valueOf(i)));
        for (int i = 0; i < 2000; i++) equal(String.valueOf(i), text(consumer));
    }

    public void testRequestAndResponse() throws Exception {
        MessageConsumer service = session.createConsumer(queue());
        Session other = connect().createSession(false, Session.AUTO_ACKNOWLEDGE);
        TemporaryQueue answers = other.createTemporaryQueue();
        MessageConsumer asking = other.createConsumer(answers);
        TextMessage question = other.createTextMessage("what?");
        question.setJMSReplyTo(answers);
        other.createProducer(queue()).send(question);
        Message request = receive(service);
        TextMessage answer = session.createTextMessage("that");
        answer.setJMSCorrelationID(request.getJMSMessageID());
        session.createProducer(request.getJMSReplyTo()).send(answer);
        Message response = receive(asking);
        equal("that", ((TextMessage) response).getText());
        equal(question.getJMSMessageID(), response.getJMSCorrelationID());
    }

    public void testReplyToATopic() throws Exception {
        MessageConsumer answers = session.createConsumer(topic());
        Message message = session.createTextMessage("x");
        message.setJMSReplyTo(topic());
        Message got = through(message);
        session.createProducer(got.getJMSReplyTo()).send(session.createTextMessage("answer"));
        equal("answer", text(answers));
    }
}
