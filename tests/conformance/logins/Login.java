import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.SecureRandom;
import java.security.cert.X509Certificate;

import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509TrustManager;

import com.rabbitmq.client.LongString;
import com.rabbitmq.client.SaslConfig;
import com.rabbitmq.client.SaslMechanism;
import com.rabbitmq.client.impl.LongStringHelper;

/**
 * Logs in with Java's clients. Reads lines of fields with tabs between them: client, port, user, password, mechanism
 * (may be empty), key store (PKCS12, password "secret"; empty: no TLS); answers each with "in" or "refused" and the
 * client's words.
 */
public class Login {
    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] field = line.split("\t", -1);
            String answer = "in";
            try {
                if (field[0].equals("jms")) {
                    jms(Integer.parseInt(field[1]), field[2], field[3], field[4], field[5]);
                } else {
                    rabbitmq(Integer.parseInt(field[1]), field[2], field[3], field[4], field[5]);
                }
            } catch (Exception error) {
                answer = "refused " + error;
            }
            System.out.println(answer.replace('\n', ' '));
        }
    }

    private static void jms(int port, String user, String password, String mechanism, String store) throws Exception {
        StringBuilder url = new StringBuilder(store.isEmpty() ? "amqp" : "amqps").append("://localhost:").append(port)
            .append("?jms.connectTimeout=10000");
        if (!mechanism.isEmpty()) {
            url.append("&amqp.saslMechanisms=").append(mechanism);
        }
        if (!store.isEmpty()) {
            url.append("&transport.trustAll=true&transport.verifyHost=false&transport.keyStorePassword=secret")
                .append("&transport.keyStoreType=PKCS12&transport.keyStoreLocation=").append(store);
        }
        org.apache.qpid.jms.JmsConnectionFactory factory = new org.apache.qpid.jms.JmsConnectionFactory(url.toString());
        jakarta.jms.Connection connection = user.isEmpty() ? factory.createConnection()
            : factory.createConnection(user, password);
        try {
            connection.start();
        } finally {
            connection.close();
        }
    }

    private static void rabbitmq(int port, String user, String password, String mechanism, String store)
            throws Exception {
        com.rabbitmq.client.ConnectionFactory factory = new com.rabbitmq.client.ConnectionFactory();
        factory.setHost("localhost");
        factory.setPort(port);
        factory.setUsername(user);
        factory.setPassword(password);
        if (!store.isEmpty()) {
            factory.useSslProtocol(context(store));
        }
        if (mechanism.equals("EXTERNAL")) {
            factory.setSaslConfig(com.rabbitmq.client.DefaultSaslConfig.EXTERNAL);
        } else if (!mechanism.isEmpty()) {
            factory.setSaslConfig(bearer(mechanism, password));
        }
        factory.newConnection().close();
    }

    private static SaslConfig bearer(String name, String token) {
        return offered -> new SaslMechanism() {
            @Override
            public String getName() {
                return name;
            }

            @Override
            public LongString handleChallenge(LongString challenge, String user, String password) {
                return LongStringHelper.asLongString("n,,\u0001auth=Bearer " + token + "\u0001\u0001");
            }
        };
    }

    private static SSLContext context(String store) throws Exception {
        KeyStore keys = KeyStore.getInstance("PKCS12");
        try (FileInputStream file = new FileInputStream(store)) {
            keys.load(file, "secret".toCharArray());
        }
        KeyManagerFactory managers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        managers.init(keys, "secret".toCharArray());
        KeyManager[] own = managers.getKeyManagers();
        SSLContext made = SSLContext.getInstance("TLS");
        made.init(own, new TrustManager[] {new X509TrustManager() {
            @Override
            public void checkClientTrusted(X509Certificate[] chain, String kind) {
            }

            @Override
            public void checkServerTrusted(X509Certificate[] chain, String kind) {
            }

            @Override
            public X509Certificate[] getAcceptedIssuers() {
                return new X509Certificate[0];
            }
        }}, new SecureRandom());
        return made;
    }
}
