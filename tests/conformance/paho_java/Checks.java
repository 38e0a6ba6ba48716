import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;

/** What the tests of the three clients share: the broker's address (MQTT_URL), assertions, and how tests are run. */
class Checks {
    static final long DEADLINE = 20; // seconds, a guard against hanging only
    static final byte[] LARGE = "dragoman".repeat(400_000).getBytes(StandardCharsets.US_ASCII);
    static final URI BROKER = URI.create(Objects.requireNonNullElse(System.getenv("MQTT_URL"),
            "mqtt://guest:guest@127.0.0.1:5672"));
    static final String TCP = "tcp://" + BROKER.getHost() + ":" + BROKER.getPort();

    /** A test's body. */
    interface Test {
        void run() throws Exception;
    }

    private static final Map<String, Test> TESTS = new LinkedHashMap<>();

    static void test(String name, Test body) {
        TESTS.put(name, body);
    }

    /** Run what was declared; prints failures and, last, a summary. */
    static int runAll() {
        List<String> failures = new ArrayList<>();
        TESTS.forEach((name, body) -> {
            try {
                body.run();
            } catch (Throwable error) {
                failures.add(name);
                System.out.println("FAILED " + name);
                error.printStackTrace(System.out);
            }
        });
        System.out.println((TESTS.size() - failures.size()) + " passed, " + failures.size() + " failed, 0 skipped");
        return failures.isEmpty() ? 0 : 1;
    }

    static String name(String role) {
        return role + "-" + UUID.randomUUID().toString().substring(0, 8);
    }

    static String topicName() {
        return "java/" + name("topic");
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

    static <T> T next(String what, BlockingQueue<T> from) throws InterruptedException {
        T found = from.poll(DEADLINE, TimeUnit.SECONDS);
        check(found != null, "never came: " + what);
        return found;
    }

    static void until(String what, Callable<Boolean> condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE);
        for (; !condition.call(); Thread.sleep(5)) check(System.nanoTime() < end, "never happened: " + what);
    }
}
