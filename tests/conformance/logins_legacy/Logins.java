/**
 * Logs in once, by the client that is named: {@code Logins jms10|jms0x URL USER PASSWORD}. Prints "in", or
 * "refused" and what the client says of it.
 */
public class Logins {
    public static void main(String[] arguments) throws Exception {
        try {
            switch (arguments[0]) {
                case "jms10" -> jms10(arguments[1], arguments[2], arguments[3]);
                case "jms0x" -> new org.apache.qpid.client.AMQConnectionFactory(arguments[1]).createConnection().close();
                default -> throw new IllegalArgumentException(arguments[0]);
            }
            System.out.println("in");
        } catch (Exception error) {
            StringBuilder text = new StringBuilder("refused");
            for (Throwable each = error; each != null; each = each.getCause()) text.append(": ").append(each);
            System.out.println(text);
        }
        System.exit(0);
    }

    static void jms10(String url, String user, String password) throws Exception {
        var factory = new org.apache.qpid.jms.JmsConnectionFactory(url);
        var connection = user.isEmpty() ? factory.createConnection() : factory.createConnection(user, password);
        connection.start();
        connection.close();
    }
}
