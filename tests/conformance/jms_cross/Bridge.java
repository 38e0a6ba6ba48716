import jakarta.jms.BytesMessage;
import jakarta.jms.Connection;
import jakarta.jms.DeliveryMode;
import jakarta.jms.Destination;
import jakarta.jms.JMSException;
import jakarta.jms.MapMessage;
import jakarta.jms.Message;
import jakarta.jms.MessageConsumer;
import jakarta.jms.MessageProducer;
import jakarta.jms.ObjectMessage;
import jakarta.jms.Queue;
import jakarta.jms.Session;
import jakarta.jms.StreamMessage;
import jakarta.jms.TextMessage;
import jakarta.jms.Topic;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.Serializable;
import java.net.URI;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import org.apache.qpid.jms.JmsConnectionFactory;

/**
 * Qpid JMS by remote control: sends and receives messages as the lines on its standard input say, and answers each
 * with a line. A line is a list of fields with tabs between; the fields of a message are NAME=TYPE:VALUE, percent-
 * encoded as a whole, where NAME begins with what it is about: `header.`, `property.` or `body.`.
 *
 *     send QUEUE KIND FIELD...    answers the fields that sending has set
 *     receive QUEUE               answers KIND FIELD...; `nothing` after the time-out
 *
 * What goes wrong is answered by `error` and its text.
 */
public class Bridge {
    static final long DEADLINE = 20_000; // ms, a guard against hanging only

    final Session session;

    Bridge(Session session) {
        this.session = session;
    }

    public static void main(String[] arguments) throws Exception {
        URI url = URI.create(System.getenv("AMQP_URL"));
        JmsConnectionFactory factory = new JmsConnectionFactory("guest", "guest", "amqp://" + url.getHost() + ":"
            + url.getPort() + "?jms.deserializationPolicy.allowList=*&jms.validatePropertyNames=false");
        try (Connection connection = factory.createConnection()) {
            connection.start();
            Bridge bridge = new Bridge(connection.createSession());
            BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line = input.readLine(); line != null; line = input.readLine()) {
                List<String> answer;
                try {
                    answer = bridge.obey(line.split("\t"));
                } catch (Exception error) {
                    answer = List.of("error", URLEncoder.encode(error.toString(), StandardCharsets.UTF_8));
                }
                System.out.println(String.join("\t", answer));
                System.out.flush();
            }
        }
    }

    List<String> obey(String[] command) throws Exception {
        Queue queue = session.createQueue(command[1]);
        if (command[0].equals("receive")) {
            try (MessageConsumer consumer = session.createConsumer(queue)) {
                Message message = consumer.receive(DEADLINE);
                return message == null ? List.of("nothing") : tell(message);
            }
        }
        Map<String, Object> fields = new LinkedHashMap<>();
        for (int at = 3; at < command.length; at++) {
            String[] pair = URLDecoder.decode(command[at], StandardCharsets.UTF_8).split("=", 2);
            fields.put(pair[0], value(pair[1]));
        }
        return send(queue, command[2], fields);
    }

    // Sending.

    List<String> send(Queue queue, String kind, Map<String, Object> fields) throws Exception {
        Message message = switch (kind) {
            case "text" -> session.createTextMessage((String) fields.get("body."));
            case "bytes" -> session.createBytesMessage();
            case "map" -> session.createMapMessage();
            case "stream" -> session.createStreamMessage();
            case "object" -> session.createObjectMessage((Serializable) fields.get("body."));
            default -> session.createMessage();
        };
        try (MessageProducer producer = session.createProducer(queue)) {
            for (Map.Entry<String, Object> field : fields.entrySet()) {
                String[] name = field.getKey().split("\\.", 2);
                Object value = field.getValue();
                switch (name[0]) {
                    case "property" -> message.setObjectProperty(name[1], value);
                    case "header" -> header(producer, message, name[1], value);
                    default -> {
                        if (message instanceof MapMessage map) map.setObject(name[1], value);
                        if (message instanceof StreamMessage stream) stream.writeObject(value);
                        if (message instanceof BytesMessage bytes) bytes.writeBytes((byte[]) value);
                    }
                }
            }
            producer.send(message);
        }
        return List.of("sent", field("header.id", message.getJMSMessageID()),
            field("header.timestamp", message.getJMSTimestamp()),
            field("header.expiration", message.getJMSExpiration()));
    }

    void header(MessageProducer producer, Message message, String name, Object value) throws JMSException {
        switch (name) {
            case "correlation" -> message.setJMSCorrelationID((String) value);
            case "type" -> message.setJMSType((String) value);
            case "reply-queue" -> message.setJMSReplyTo(session.createQueue((String) value));
            case "reply-topic" -> message.setJMSReplyTo(session.createTopic((String) value));
            case "priority" -> producer.setPriority((Integer) value);
            case "time-to-live" -> producer.setTimeToLive((Long) value);
            case "persistent" -> producer.setDeliveryMode((Boolean) value ? DeliveryMode.PERSISTENT
                : DeliveryMode.NON_PERSISTENT);
            default -> throw new IllegalArgumentException(name);
        }
    }

    // Receiving.

    List<String> tell(Message message) throws Exception {
        List<String> told = new ArrayList<>();
        if (message instanceof TextMessage text) {
            told.add("text");
            told.add(field("body.", text.getText()));
        } else if (message instanceof BytesMessage bytes) {
            told.add("bytes");
            byte[] content = new byte[(int) bytes.getBodyLength()];
            bytes.readBytes(content);
            told.add(field("body.", content));
        } else if (message instanceof MapMessage map) {
            told.add("map");
            for (Object name : Collections.list(map.getMapNames())) {
                told.add(field("body." + name, map.getObject((String) name)));
            }
        } else if (message instanceof StreamMessage stream) {
            told.add("stream");
            try {
                for (int number = 0; ; number++) told.add(field("body." + number, stream.readObject()));
            } catch (jakarta.jms.MessageEOFException end) {
                // that was all of it
            }
        } else if (message instanceof ObjectMessage object) {
            told.add("object");
            told.add(field("body.", object.getObject()));
        } else {
            told.add("message");
        }
        for (Object name : Collections.list(message.getPropertyNames())) {
            told.add(field("property." + name, message.getObjectProperty((String) name)));
        }
        told.add(field("header.id", message.getJMSMessageID()));
        told.add(field("header.correlation", message.getJMSCorrelationID()));
        told.add(field("header.type", message.getJMSType()));
        told.add(field("header.priority", message.getJMSPriority()));
        told.add(field("header.timestamp", message.getJMSTimestamp()));
        told.add(field("header.expiration", message.getJMSExpiration()));
        told.add(field("header.persistent", message.getJMSDeliveryMode() == DeliveryMode.PERSISTENT));
        told.add(field("header.reply-to", destination(message.getJMSReplyTo())));
        told.add(field("header.destination", destination(message.getJMSDestination())));
        return told;
    }

    static String destination(Destination destination) throws JMSException {
        if (destination instanceof Topic topic) return "topic " + topic.getTopicName();
        return destination == null ? null : "queue " + ((Queue) destination).getQueueName();
    }

    // Values as text.

    static String field(String name, Object value) {
        return URLEncoder.encode(name + "=" + text(value), StandardCharsets.UTF_8);
    }

    static String text(Object value) {
        if (value == null) return "null:";
        if (value instanceof byte[] bytes) return "bytes:" + HexFormat.of().formatHex(bytes);
        if (value instanceof Map<?, ?> map) return "map:" + new TreeMap<>(map);
        if (value instanceof List<?> list) return "list:" + list;
        return value.getClass().getSimpleName().toLowerCase() + ":" + value;
    }

    static Object value(String text) {
        String[] parts = text.split(":", 2);
        String written = parts[1];
        return switch (parts[0]) {
            case "null" -> null;
            case "boolean" -> Boolean.valueOf(written);
            case "byte" -> Byte.valueOf(written);
            case "short" -> Short.valueOf(written);
            case "character" -> written.charAt(0);
            case "integer" -> Integer.valueOf(written);
            case "long" -> Long.valueOf(written);
            case "float" -> Float.valueOf(written);
            case "double" -> Double.valueOf(written);
            case "string" -> written;
            case "bytes" -> HexFormat.of().parseHex(written);
            case "list" -> new ArrayList<>(List.of(written.substring(1, written.length() - 1).split(", ")));
            default -> throw new IllegalArgumentException(Objects.toString(text));
        };
    }
}
