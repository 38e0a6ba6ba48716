import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.net.URI;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.UUID;
import javax.jms.Connection;
import javax.jms.JMSException;
import javax.jms.Message;
import javax.jms.MessageConsumer;
import javax.jms.MessageProducer;
import javax.jms.Queue;
import javax.jms.Session;
import javax.jms.TextMessage;
import javax.jms.Topic;
import org.apache.qpid.client.AMQConnection;
import org.apache.qpid.client.AMQConnectionFactory;

/**
 * Qpid's JMS client for AMQP 0-8, 0-9, 0-9-1 and 0-10 against the broker at AMQP_URL: {@code Jms0x [VERSION] [TEST]}.
 * Each test is a method of one of the classes in SUITES and runs with each version; its name is written as
 * test010Something when it is for 0-10 alone.
 */
public class Jms0x {
    static final List<String> VERSIONS = List.of("0-8", "0-9", "0-9-1", "0-10");
    static final List<Class<? extends Jms0x>> SUITES =
        List.of(Contents.class, Settling.class, Destinations.class, Branches.class);
    static final long DEADLINE = 20_000; // ms, a guard against hanging only
    static final long NOTHING = 300; // ms that are waited for what must not come

    final List<Connection> opened = new ArrayList<>();
    String version;
    String name;
    Connection connection;
    Session session;

    public static void main(String[] arguments) throws Exception {
        int passed = 0;
        int failed = 0;
        List<String> asked = Arrays.asList(arguments);
        for (String version : VERSIONS) {
            if (asked.stream().anyMatch(VERSIONS::contains) && !asked.contains(version)) continue;
            System.setProperty("qpid.amqp.version", version);
            for (Method method : tests(version)) {
                boolean chosen = asked.stream().anyMatch(each -> each.startsWith("test"));
                if (chosen && !asked.contains(method.getName())) continue;
                String failure = run(method, version);
                if (failure == null) {
                    passed++;
                    System.out.println("ok " + version + " " + method.getName());
                } else {
                    failed++;
                    System.out.println("FAILED " + version + " " + method.getName() + ": " + failure);
                }
            }
        }
        System.out.println(passed + " passed, " + failed + " failed, 0 skipped");
        System.exit(failed == 0 ? 0 : 1);
    }

    static List<Method> tests(String version) {
        List<Method> methods = new ArrayList<>();
        for (Class<?> suite : SUITES) {
            for (Method method : suite.getDeclaredMethods()) {
                String name = method.getName();
                boolean fits = !name.startsWith("test010") || version.equals("0-10");
                if (name.startsWith("test") && fits) methods.add(method);
            }
        }
        methods.sort((one, other) -> one.getName().compareTo(other.getName()));
        return methods;
    }

    /** What went wrong with the test, or null. */
    static String run(Method method, String version) throws Exception {
        Jms0x test = (Jms0x) method.getDeclaringClass().getDeclaredConstructor().newInstance();
        test.version = version;
        Throwable error = null;
        try {
            test.setUp();
            method.invoke(test);
        } catch (InvocationTargetException wrapped) {
            error = wrapped.getCause();
        } catch (Throwable thrown) {
            error = thrown;
        }
        try {
            test.tearDown();
        } catch (Throwable thrown) {
            if (error == null) error = thrown;
        }
        if (error == null) return null;
        StringBuilder text = new StringBuilder(String.valueOf(error));
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            if (cause != error) text.append("\n    because of ").append(cause);
            for (StackTraceElement line : cause.getStackTrace()) {
                if (!line.getClassName().contains(".")) text.append("\n    at ").append(line);
            }
        }
        return text.toString();
    }

    static URI address() {
        return URI.create(Objects.requireNonNullElse(System.getenv("AMQP_URL"), "amqp://guest:guest@127.0.0.1:5672/"));
    }

    static String peer() {
        return address().getHost() + ":" + address().getPort();
    }

    void setUp() throws Exception {
        name = "jms0x-" + UUID.randomUUID();
        connection = connect();
        String spoken = ((AMQConnection) connection).getProtocolVersion().toString();
        equal(version.equals("0-8") ? "8-0" : version.equals("0-9-1") ? "0-91" : version, spoken);
        session = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
    }

    void tearDown() throws Exception {
        for (Connection each : opened) each.close();
    }

    Connection connect() throws Exception {
        return connect(peer(), "");
    }

    Connection connect(String peer, String options) throws Exception {
        Connection made = prepare(peer, "client-" + name, options);
        made.start();
        return made;
    }

    /** A connection that is not started. */
    Connection prepare(String peer, String client, String options) throws Exception {
        Connection made = new AMQConnectionFactory("amqp://guest:guest@" + client + "/?brokerlist='tcp://" + peer + "'"
            + options).createConnection();
        opened.add(made);
        return made;
    }

    /** A queue with the test's name, bound to amq.direct, which the client declares and the broker forgets. */
    Queue queue() throws JMSException {
        return queue(name);
    }

    Queue queue(String name) throws JMSException {
        return session.createQueue("BURL:direct://amq.direct/" + name + "/" + name + "?autodelete='true'");
    }

    Topic topic() throws JMSException {
        return session.createTopic("BURL:topic://amq.topic/" + name + "/");
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
        Message message = consumer.receive(NOTHING);
        check(message == null, "nothing was to come, and not " + message);
    }

    void send(MessageProducer producer, String... texts) throws JMSException {
        for (String text : texts) producer.send(session.createTextMessage(text));
    }

    static void check(boolean condition, String what) {
        if (!condition) throw new AssertionError(what);
    }

    static void equal(Object expected, Object found) {
        if (!Objects.equals(expected, found)) throw new AssertionError("expected " + expected + ", found " + found);
    }

    /** Something that must fail. */
    interface Mistake {
        void make() throws Exception;
    }

    static JMSException refused(Mistake mistake) throws Exception {
        try {
            mistake.make();
        } catch (JMSException expected) {
            return expected;
        }
        throw new AssertionError("that was to be refused");
    }
}
