import java.util.Arrays;
import java.util.UUID;
import javax.jms.MessageConsumer;
import javax.jms.MessageProducer;
import javax.jms.Queue;
import javax.jms.XAConnection;
import javax.jms.XASession;
import javax.transaction.xa.XAException;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;
import org.apache.qpid.client.AMQConnectionFactory;

/** XA, which the client offers with 0-10 alone. */
public class Branches extends Jms0x {
    private MessageConsumer outside;
    private XAConnection distributed;
    private XASession xa;
    private XAResource resource;
    private MessageProducer producer;

    @Override
    void setUp() throws Exception {
        super.setUp();
        outside = session.createConsumer(queue());
        join();
    }

    private void join() throws Exception {
        distributed = new AMQConnectionFactory("amqp://guest:guest@xa/?brokerlist='tcp://" + peer() + "'")
            .createXAConnection();
        opened.add(distributed);
        distributed.start();
        xa = distributed.createXASession();
        resource = xa.getXAResource();
        producer = xa.createProducer(queue());
    }

    private Xid work(String text) throws Exception {
        Xid xid = new Branch();
        resource.start(xid, XAResource.TMNOFLAGS);
        send(producer, text);
        resource.end(xid, XAResource.TMSUCCESS);
        return xid;
    }

    private boolean recovered(Xid xid) throws XAException {
        return Arrays.stream(resource.recover(XAResource.TMSTARTRSCAN | XAResource.TMENDRSCAN)).anyMatch(each ->
            Arrays.equals(each.getGlobalTransactionId(), xid.getGlobalTransactionId())
                && Arrays.equals(each.getBranchQualifier(), xid.getBranchQualifier())
                && each.getFormatId() == xid.getFormatId());
    }

    private static int refusedCode(Mistake mistake) throws Exception {
        try {
            mistake.make();
        } catch (XAException expected) {
            return expected.errorCode;
        }
        throw new AssertionError("that was to be refused");
    }

    public void test010OnePhase() throws Exception {
        Xid xid = work("x");
        nothing(outside);
        resource.commit(xid, true);
        equal("x", text(outside));
    }

    public void test010TwoPhasesWithRecover() throws Exception {
        Xid xid = work("x");
        equal(false, recovered(xid));
        equal(XAResource.XA_OK, resource.prepare(xid));
        equal(true, recovered(xid));
        nothing(outside);
        resource.commit(xid, false);
        equal("x", text(outside));
        equal(false, recovered(xid));
    }

    public void test010CommittedByAnotherConnection() throws Exception {
        Xid xid = work("x");
        equal(XAResource.XA_OK, resource.prepare(xid));
        distributed.close();
        join();
        equal(true, recovered(xid));
        resource.commit(xid, false);
        equal("x", text(outside));
    }

    public void test010Rollback() throws Exception {
        resource.rollback(work("lost"));
        Xid prepared = work("lost too");
        resource.prepare(prepared);
        resource.rollback(prepared);
        nothing(outside);
    }

    public void test010ReceivedWithinABranch() throws Exception {
        outside.close();
        MessageConsumer consumer = xa.createConsumer(queue());
        send(session.createProducer(queue()), "x");
        Xid undone = new Branch();
        resource.start(undone, XAResource.TMNOFLAGS);
        equal("x", text(consumer));
        resource.end(undone, XAResource.TMSUCCESS);
        resource.prepare(undone);
        resource.rollback(undone);
        Xid done = new Branch();
        resource.start(done, XAResource.TMNOFLAGS);
        equal("x", text(consumer));
        resource.end(done, XAResource.TMSUCCESS);
        resource.commit(done, true);
        distributed.close();
        outside = session.createConsumer(queue());
        nothing(outside);
    }

    public void test010SuspendAndResume() throws Exception {
        Xid xid = new Branch();
        resource.start(xid, XAResource.TMNOFLAGS);
        send(producer, "one");
        resource.end(xid, XAResource.TMSUSPEND);
        resource.start(xid, XAResource.TMRESUME);
        send(producer, "two");
        resource.end(xid, XAResource.TMSUCCESS);
        resource.commit(xid, true);
        equal("one", text(outside));
        equal("two", text(outside));
    }

    public void test010JoinedByTwoSessions() throws Exception {
        Xid xid = new Branch();
        XASession other = distributed.createXASession();
        resource.start(xid, XAResource.TMNOFLAGS);
        other.getXAResource().start(xid, XAResource.TMJOIN);
        send(producer, "one");
        other.createProducer(queue()).send(other.createTextMessage("two"));
        other.getXAResource().end(xid, XAResource.TMSUCCESS);
        resource.end(xid, XAResource.TMSUCCESS);
        resource.commit(xid, true);
        equal("one", text(outside));
        equal("two", text(outside));
    }

    public void test010FailedBranch() throws Exception {
        Xid xid = new Branch();
        resource.start(xid, XAResource.TMNOFLAGS);
        send(producer, "lost");
        try {
            resource.end(xid, XAResource.TMFAIL);
            resource.rollback(xid);
        } catch (XAException rolledBack) {
            equal(XAException.XA_RBROLLBACK, rolledBack.errorCode);
            resource.rollback(xid);
        }
        nothing(outside);
    }

    public void test010BranchThatIsNotThere() throws Exception {
        equal(XAException.XAER_NOTA, refusedCode(() -> resource.commit(new Branch(), false)));
    }

    public void test010Timeout() throws Exception {
        check(resource.setTransactionTimeout(1), "the time-out can be set");
        Xid xid = new Branch();
        resource.start(xid, XAResource.TMNOFLAGS);
        send(producer, "lost");
        Thread.sleep(1800);
        refusedCode(() -> {
            resource.end(xid, XAResource.TMSUCCESS);
            resource.prepare(xid);
        });
        nothing(outside);
    }

    /** A branch of a global transaction of its own. */
    static class Branch implements Xid {
        private final byte[] global = UUID.randomUUID().toString().getBytes();

        public int getFormatId() {
            return 7;
        }

        public byte[] getGlobalTransactionId() {
            return global;
        }

        public byte[] getBranchQualifier() {
            return new byte[] {1};
        }
    }
}
