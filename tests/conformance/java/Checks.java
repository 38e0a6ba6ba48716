import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.Method;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;

/** What the tests share: assertions, the broker's address (AMQP_URL), names that are deleted, a network to cut. */
class Checks {
    static final long DEADLINE = 20; // seconds, a guard against hanging only
    static final byte[] LARGE = "dragoman".repeat(400_000).getBytes(StandardCharsets.US_ASCII);

    /** A test's body. */
    interface Test {
        void run() throws Exception;
    }

    Connection connection;
    Channel channel;
    private final List<String> queues = new ArrayList<>();
    private final List<String> exchanges = new ArrayList<>();

    static String address() {
        return Objects.requireNonNullElse(System.getenv("AMQP_URL"), "amqp://guest:guest@127.0.0.1:5672/");
    }

    static ConnectionFactory factory() throws Exception {
        URI uri = new URI(address());
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost(uri.getHost());
        factory.setPort(uri.getPort() < 0 ? 5672 : uri.getPort());
        factory.setAutomaticRecoveryEnabled(false);
        return factory;
    }

    void open() throws Exception {
        connection = factory().newConnection("conformance");
        channel = connection.createChannel();
    }

    void clean() throws Exception {
        connection.abort();
        try (Connection cleaner = factory().newConnection()) {
            Channel own = cleaner.createChannel();
            for (String queue : queues) own.queueDelete(queue);
            for (String exchange : exchanges) own.exchangeDelete(exchange);
        }
        queues.clear();
        exchanges.clear();
    }

    static String name(String role) {
        return role + "-" + UUID.randomUUID();
    }

    String queueName() {
        queues.add(name("queue"));
        return queues.get(queues.size() - 1);
    }

    String exchangeName() {
        exchanges.add(name("exchange"));
        return exchanges.get(exchanges.size() - 1);
    }

    String queue(Map<String, Object> arguments) throws IOException {
        return channel.queueDeclare(queueName(), true, false, false, arguments).getQueue();
    }

    String exchange(String type, Map<String, Object> arguments) throws IOException {
        String exchange = exchangeName();
        channel.exchangeDeclare(exchange, type, true, false, arguments);
        return exchange;
    }

    void publish(String exchange, String key, String body) throws IOException {
        channel.basicPublish(exchange, key, null, bytes(body));
    }

    GetResponse get(String queue, boolean autoAck) throws Exception {
        return until("a message in " + queue, () -> channel.basicGet(queue, autoAck));
    }

    List<String> drain(String queue) throws IOException {
        List<String> found = new ArrayList<>();
        for (GetResponse each; (each = channel.basicGet(queue, true)) != null; ) found.add(text(each.getBody()));
        return found;
    }

    void depth(String queue, long expected) throws Exception {
        until(expected + " messages in " + queue, () -> channel.messageCount(queue) == expected ? true : null);
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    static void check(boolean condition, String what) {
        if (!condition) throw new AssertionError(what);
    }

    static void equal(Object got, Object want) {
        if (!Objects.deepEquals(got, want)) throw new AssertionError("got " + got + ", want " + want);
    }

    /** Wait until the call gives something. */
    static <T> T until(String what, Callable<T> call) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE);
        for (T found; ; Thread.sleep(10)) {
            if ((found = call.call()) != null) return found;
            check(System.nanoTime() < end, "never happened: " + what);
        }
    }

    static <T> T next(String what, BlockingQueue<T> from) throws InterruptedException {
        T found = from.poll(DEADLINE, TimeUnit.SECONDS);
        check(found != null, "never came: " + what);
        return found;
    }

    /** The broker must refuse with this code; returns its text. */
    static String refused(int code, Test test) throws Exception {
        try {
            test.run();
        } catch (IOException | AlreadyClosedException error) {
            Throwable cause = error instanceof IOException && error.getCause() != null ? error.getCause() : error;
            check(cause instanceof ShutdownSignalException, "no shutdown signal: " + cause);
            return text((ShutdownSignalException) cause, code);
        }
        throw new AssertionError("was not refused with " + code);
    }

    static String text(ShutdownSignalException signal, int code) {
        Method reason = signal.getReason();
        if (reason instanceof AMQP.Channel.Close) {
            equal(((AMQP.Channel.Close) reason).getReplyCode(), code);
            return ((AMQP.Channel.Close) reason).getReplyText();
        }
        check(reason instanceof AMQP.Connection.Close, "closed for another reason: " + signal);
        equal(((AMQP.Connection.Close) reason).getReplyCode(), code);
        return ((AMQP.Connection.Close) reason).getReplyText();
    }

    /** A network between client and broker that can break. */
    static final class Network implements AutoCloseable {
        private final ServerSocket listener = new ServerSocket(0, 50, java.net.InetAddress.getLoopbackAddress());
        private final Set<Socket> sockets = ConcurrentHashMap.newKeySet();
        private final ConnectionFactory broker;

        Network() throws Exception {
            broker = factory();
            daemon(this::accept);
        }

        ConnectionFactory factoryThrough() throws Exception {
            ConnectionFactory through = factory();
            through.setHost("127.0.0.1");
            through.setPort(listener.getLocalPort());
            return through;
        }

        void cut() {
            sockets.forEach(Network::close);
            sockets.clear();
        }

        @Override
        public void close() throws IOException {
            listener.close();
            cut();
        }

        private void accept() {
            while (true) {
                try {
                    Socket inner = listener.accept();
                    Socket outer = new Socket(broker.getHost(), broker.getPort());
                    sockets.add(inner);
                    sockets.add(outer);
                    daemon(() -> pump(inner, outer));
                    daemon(() -> pump(outer, inner));
                } catch (IOException closed) {
                    return;
                }
            }
        }

        private static void pump(Socket from, Socket to) {
            try {
                from.getInputStream().transferTo(to.getOutputStream());
            } catch (IOException cut) {
                // the other side is closed below
            }
            close(from);
            close(to);
        }

        private static void close(Socket socket) {
            try {
                socket.close();
            } catch (IOException gone) {
                // that is what was wanted
            }
        }

        private static void daemon(Runnable work) {
            Thread thread = new Thread(work);
            thread.setDaemon(true);
            thread.start();
        }
    }
}
