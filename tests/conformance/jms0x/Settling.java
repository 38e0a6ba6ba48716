import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.jms.Connection;
import javax.jms.Message;
import javax.jms.MessageConsumer;
import javax.jms.MessageProducer;
import javax.jms.Queue;
import javax.jms.Session;
import javax.jms.TextMessage;

/** Acknowledgement in its modes, recovery, transactions, connections that are lost. */
public class Settling extends Jms0x {
    private boolean declared;

    /** A queue of this test that stays when it has no consumers. */
    Queue kept() throws Exception {
        Queue queue = session.createQueue("BURL:direct://amq.direct/" + name + "/" + name + "?durable='true'");
        session.createConsumer(queue).close();
        declared = true;
        return queue;
    }

    @Override
    void tearDown() throws Exception {
        super.tearDown();
        if (!declared) return;
        Connection own = connect();
        ((org.apache.qpid.jms.Session) own.createSession(false, Session.AUTO_ACKNOWLEDGE)).deleteQueue(name);
        own.close();
    }

    public void testClientAcknowledge() throws Exception {
        Queue queue = kept();
        send(session.createProducer(queue), "one", "two", "three");
        Connection other = connect();
        Session acknowledging = other.createSession(false, Session.CLIENT_ACKNOWLEDGE);
        MessageConsumer consumer = acknowledging.createConsumer(queue);
        equal("one", text(consumer));
        receive(consumer).acknowledge();
        equal("three", text(consumer));
        other.close();
        MessageConsumer again = session.createConsumer(queue);
        TextMessage message = (TextMessage) receive(again);
        equal("three", message.getText());
        equal(true, message.getJMSRedelivered());
        nothing(again);
    }

    public void testAutoAcknowledge() throws Exception {
        Queue queue = kept();
        send(session.createProducer(queue), "one", "two");
        Connection other = connect();
        equal("one", text(other.createSession(false, Session.AUTO_ACKNOWLEDGE).createConsumer(queue)));
        other.close();
        MessageConsumer again = session.createConsumer(queue);
        equal("two", text(again));
        nothing(again);
    }

    public void testDupsOk() throws Exception {
        Queue queue = kept();
        MessageProducer producer = session.createProducer(queue);
        for (int i = 0; i < 100; i++) send(producer, "m" + i);
        Connection other = connect();
        MessageConsumer consumer = other.createSession(false, Session.DUPS_OK_ACKNOWLEDGE).createConsumer(queue);
        for (int i = 0; i < 100; i++) equal("m" + i, text(consumer));
        other.close();
        nothing(session.createConsumer(queue));
    }

    public void testNoAcknowledge() throws Exception {
        Queue queue = kept();
        send(session.createProducer(queue), "one", "two");
        Connection other = connect();
        int mode = org.apache.qpid.jms.Session.NO_ACKNOWLEDGE;
        MessageConsumer consumer = other.createSession(false, mode).createConsumer(queue);
        equal("one", text(consumer));
        equal("two", text(consumer));
        other.close();
        nothing(session.createConsumer(queue));
    }

    public void testRecover() throws Exception {
        Queue queue = kept();
        send(session.createProducer(queue), "one", "two");
        Session acknowledging = connect().createSession(false, Session.CLIENT_ACKNOWLEDGE);
        MessageConsumer consumer = acknowledging.createConsumer(queue);
        equal("one", text(consumer));
        equal("two", text(consumer));
        acknowledging.recover();
        Message message = receive(consumer);
        equal("one", ((TextMessage) message).getText());
        equal(true, message.getJMSRedelivered());
        message = receive(consumer);
        equal("two", ((TextMessage) message).getText());
        message.acknowledge();
        acknowledging.close();
        nothing(session.createConsumer(queue));
    }

    public void testListenerAndItsExceptions() throws Exception {
        MessageConsumer consumer = session.createConsumer(queue());
        BlockingQueue<String> got = new LinkedBlockingQueue<>();
        consumer.setMessageListener(message -> {
            try {
                got.add(((TextMessage) message).getText() + message.getJMSRedelivered());
            } catch (javax.jms.JMSException error) {
                got.add(error.toString());
            }
        });
        Session sending = connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
        send(sending.createProducer(queue()), "one", "two");
        equal("onefalse", got.poll(DEADLINE, TimeUnit.MILLISECONDS));
        equal("twofalse", got.poll(DEADLINE, TimeUnit.MILLISECONDS));
    }

    public void testCommitAndRollbackOfWhatIsSent() throws Exception {
        Queue queue = kept();
        Session transacted = connect().createSession(true, Session.SESSION_TRANSACTED);
        MessageProducer producer = transacted.createProducer(queue);
        MessageConsumer consumer = session.createConsumer(queue);
        send(producer, "lost");
        transacted.rollback();
        send(producer, "kept");
        nothing(consumer);
        transacted.commit();
        equal("kept", text(consumer));
        nothing(consumer);
    }

    public void testCommitAndRollbackOfWhatIsReceived() throws Exception {
        Queue queue = kept();
        send(session.createProducer(queue), "one", "two", "three");
        Connection other = connect();
        Session transacted = other.createSession(true, Session.SESSION_TRANSACTED);
        MessageConsumer consumer = transacted.createConsumer(queue);
        equal("one", text(consumer));
        transacted.commit();
        equal("two", text(consumer));
        equal("three", text(consumer));
        transacted.rollback();
        TextMessage again = (TextMessage) receive(consumer);
        equal("two", again.getText());
        equal(true, again.getJMSRedelivered());
        transacted.commit();
        other.close();
        MessageConsumer last = session.createConsumer(queue);
        equal("three", text(last));
        nothing(last);
    }

    public void testRollbackByClosing() throws Exception {
        Queue queue = kept();
        send(session.createProducer(queue), "one");
        Session transacted = connect().createSession(true, Session.SESSION_TRANSACTED);
        equal("one", text(transacted.createConsumer(queue)));
        send(transacted.createProducer(queue), "lost");
        transacted.close();
        MessageConsumer consumer = session.createConsumer(queue);
        equal("one", text(consumer));
        nothing(consumer);
    }

    public void testReceiveAndSendInOneTransaction() throws Exception {
        Queue queue = kept();
        MessageConsumer answers = session.createConsumer(queue(name + "-out"));
        MessageProducer source = session.createProducer(queue);
        for (int i = 0; i < 50; i++) send(source, "m" + i);
        Session transacted = connect().createSession(true, Session.SESSION_TRANSACTED);
        MessageConsumer consumer = transacted.createConsumer(queue);
        MessageProducer producer = transacted.createProducer(queue(name + "-out"));
        for (int i = 0; i < 50; i++) {
            send(producer, "out " + text(consumer));
            if (i % 10 == 9) transacted.commit();
        }
        for (int i = 0; i < 50; i++) equal("out m" + i, text(answers));
        nothing(answers);
    }

    public void testPrefetchOfOneSharesTheWork() throws Exception {
        Queue queue = kept();
        List<MessageConsumer> consumers = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            Connection other = connect(peer(), "&maxprefetch='1'");
            consumers.add(other.createSession(false, Session.CLIENT_ACKNOWLEDGE).createConsumer(queue));
        }
        send(session.createProducer(queue), "one", "two", "three", "four");
        String first = text(consumers.get(0));
        String second = text(consumers.get(1));
        equal(true, List.of("one", "two").containsAll(List.of(first, second)));
    }

    public void testConnectionStopped() throws Exception {
        Queue queue = kept();
        Connection other = prepare(peer(), "stopped-" + name, "");
        MessageConsumer consumer = other.createSession(false, Session.AUTO_ACKNOWLEDGE).createConsumer(queue);
        send(session.createProducer(queue), "one");
        nothing(consumer);
        other.start();
        equal("one", text(consumer));
        other.stop(); // a receive() that waits takes a message all the same
        send(session.createProducer(queue), "two");
        other.start();
        equal("two", text(consumer));
    }

    public void testFailover() throws Exception {
        Queue queue = kept();
        try (Cutter cutter = new Cutter(address().getHost(), address().getPort())) {
            Connection other = connect(cutter.address() + "?retries='50'&connectdelay='100'",
                "&failover='singlebroker?cyclecount='20''");
            Session its = other.createSession(false, Session.CLIENT_ACKNOWLEDGE);
            MessageConsumer consumer = its.createConsumer(queue);
            MessageProducer producer = its.createProducer(queue);
            send(producer, "one");
            receive(consumer).acknowledge();
            cutter.cut();
            send(session.createProducer(queue), "two");
            Message message = receive(consumer);
            equal("two", ((TextMessage) message).getText());
            message.acknowledge();
            send(producer, "three");
            equal("three", text(consumer));
            nothing(consumer);
            other.close();
        }
    }
}
