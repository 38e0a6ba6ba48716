import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** A way to the broker that can be cut: whoever was connected is not, and may connect again. */
class Cutter implements Closeable {
    private final ServerSocket listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
    private final List<Socket> sockets = new CopyOnWriteArrayList<>();

    Cutter(String host, int port) throws IOException {
        start(() -> {
            while (true) {
                Socket client = listener.accept();
                Socket broker = new Socket(host, port);
                sockets.addAll(List.of(client, broker));
                start(() -> pass(client, broker));
                start(() -> pass(broker, client));
            }
        });
    }

    String address() {
        return "127.0.0.1:" + listener.getLocalPort();
    }

    void cut() throws IOException {
        for (Socket each : sockets) each.close();
        sockets.clear();
    }

    @Override
    public void close() throws IOException {
        listener.close();
        cut();
    }

    private static void pass(Socket from, Socket to) throws IOException {
        byte[] buffer = new byte[65536];
        InputStream input = from.getInputStream();
        for (int size = input.read(buffer); size >= 0; size = input.read(buffer)) {
            to.getOutputStream().write(buffer, 0, size);
        }
        to.shutdownOutput();
    }

    /** Something that ends when a socket is closed. */
    interface Work {
        void run() throws IOException;
    }

    private static void start(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (IOException closed) {
                return;
            }
        });
        thread.setDaemon(true);
        thread.start();
    }
}
