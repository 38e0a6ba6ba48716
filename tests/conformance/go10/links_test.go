package interop10

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
)

func TestConnectionProperties(t *testing.T) {
	ctx := limited(t)
	connection := dial(t, ctx, &amqp.ConnOptions{HostName: "vhost:/", Properties: map[string]any{"product": "test"}})
	for _, name := range []string{"product", "version"} {
		if text, ok := connection.Properties()[name].(string); !ok || text == "" {
			t.Fatalf("%s is %v", name, connection.Properties()[name])
		}
	}
}

func TestConnectionsThatAreRefused(t *testing.T) {
	ctx := limited(t)
	_, err := amqp.Dial(ctx, strings.Replace(address(), "guest:guest@", "guest:wrong@", 1), nil)
	if err == nil {
		t.Fatal("a wrong password was let in")
	}
	connection := dial(t, ctx, &amqp.ConnOptions{HostName: "vhost:there-is-no-such-host"})
	<-connection.Done() // an open goes before the close that says why (2.4.3)
	var closed *amqp.ConnError
	if !errors.As(connection.Err(), &closed) || closed.RemoteErr == nil {
		t.Fatalf("got %v", connection.Err())
	}
	same(t, closed.RemoteErr.Condition, amqp.ErrCondNotFound)
}

func TestNoTraffic(t *testing.T) {
	ctx, session := begin(t, &amqp.ConnOptions{IdleTimeout: 2 * time.Second})
	receiver, address := queue(t, ctx, session)
	time.Sleep(5 * time.Second) // go-amqp closes when it has heard nothing for two
	send(t, ctx, newSender(t, ctx, session, address), "m")
	same(t, take(t, ctx, receiver), "m")
}

func TestSeveralSessions(t *testing.T) {
	ctx := limited(t)
	connection := dial(t, ctx, nil)
	var sessions []*amqp.Session
	var receivers []*amqp.Receiver
	for range 10 {
		session, err := connection.NewSession(ctx, nil)
		must(t, err)
		receiver, _ := queue(t, ctx, session)
		sessions, receivers = append(sessions, session), append(receivers, receiver)
	}
	for at, receiver := range receivers {
		send(t, ctx, newSender(t, ctx, sessions[(at+1)%10], receiver.Address()), "across")
		same(t, take(t, ctx, receiver), "across")
	}
	// What a session leaves unsettled goes back, and the others stay.
	kept := keep(t, ctx, sessions[1])
	unsettled := newReceiver(t, ctx, sessions[0], kept, nil)
	send(t, ctx, newSender(t, ctx, sessions[2], kept), "back")
	receive(t, ctx, unsettled)
	must(t, sessions[0].Close(ctx))
	same(t, take(t, ctx, newReceiver(t, ctx, sessions[3], kept, nil)), "back")
}

func TestRefusals(t *testing.T) {
	ctx, session := begin(t, nil)
	_, err := session.NewSender(ctx, "/queues/there-is-no-such-queue", nil)
	refused(t, err, amqp.ErrCondNotFound)
	_, err = session.NewReceiver(ctx, "/queues/there-is-no-such-queue", nil)
	refused(t, err, amqp.ErrCondNotFound)
	sender := newSender(t, ctx, session, "/exchanges/amq.direct/nowhere")
	refused(t, sender.Send(ctx, amqp.NewMessage([]byte("x")), nil), amqp.ErrCondNotFound)
	if sender.MaxMessageSize() == 0 {
		t.Fatal("the broker does not say how large a message can be")
	}
	discarding, err := session.NewSender(ctx, "/exchanges/amq.direct/nowhere", &amqp.SenderOptions{
		TargetCapabilities: []string{"DISCARD_UNROUTABLE"}})
	must(t, err)
	send(t, ctx, discarding, "x")
}

func TestAQueueIsGoneWithItsCreator(t *testing.T) {
	ctx, session := begin(t, nil)
	creator, address := queue(t, ctx, session)
	receiver := newReceiver(t, ctx, session, address, nil)
	sender := newSender(t, ctx, session, address)
	must(t, creator.Close(ctx))
	_, err := receiver.Receive(ctx, nil)
	detached(t, err, amqp.ErrCondResourceDeleted)
	if sender.Send(ctx, amqp.NewMessage([]byte("x")), nil) == nil {
		t.Fatal("a message was taken for a queue that is gone")
	}
}

func TestADynamicTarget(t *testing.T) {
	ctx, session := begin(t, nil)
	sender, err := session.NewSender(ctx, "", &amqp.SenderOptions{DynamicAddress: true})
	must(t, err)
	receiver := newReceiver(t, ctx, session, sender.Address(), nil)
	send(t, ctx, sender, "m")
	same(t, take(t, ctx, receiver), "m")
}

func TestATemporaryTopic(t *testing.T) {
	ctx, session := begin(t, nil)
	topic := newReceiver(t, ctx, session, "", &amqp.ReceiverOptions{DynamicAddress: true,
		SourceCapabilities: []string{"temporary-topic"}})
	other := newReceiver(t, ctx, session, topic.Address(), nil)
	send(t, ctx, newSender(t, ctx, session, topic.Address()), "to both")
	same(t, take(t, ctx, topic), "to both")
	same(t, take(t, ctx, other), "to both")
}

func TestALinkIsStolen(t *testing.T) {
	container := unique("container")
	ctx, first := begin(t, &amqp.ConnOptions{ContainerID: container})
	_, second := begin(t, &amqp.ConnOptions{ContainerID: container})
	address := keep(t, ctx, second)
	options := &amqp.ReceiverOptions{Name: "link"}
	robbed := newReceiver(t, ctx, first, address, options)
	thief := newReceiver(t, ctx, second, address, options)
	_, err := robbed.Receive(ctx, nil)
	if !strings.Contains(err.Error(), string(amqp.ErrCondStolen)) { // go-amqp knows no detach that does not close
		t.Fatalf("got %v", err)
	}
	send(t, ctx, newSender(t, ctx, second, address), "m")
	same(t, take(t, ctx, thief), "m")
}

func TestADurableSubscription(t *testing.T) {
	container, key := unique("container"), unique("key")
	ctx, publishing := begin(t, nil)
	sender := newSender(t, ctx, publishing, "amq.topic/"+key)
	options := &amqp.ReceiverOptions{Name: "sub", SourceDurability: amqp.DurabilityUnsettledState,
		SourceExpiryPolicy: amqp.ExpiryPolicyNever}
	connection := dial(t, ctx, &amqp.ConnOptions{ContainerID: container})
	session, err := connection.NewSession(ctx, nil)
	must(t, err)
	receiver := newReceiver(t, ctx, session, "amq.topic/"+key, options)
	send(t, ctx, sender, "1", "2")
	same(t, take(t, ctx, receiver), "1")
	same(t, string(receive(t, ctx, receiver).GetData()), "2") // not settled
	must(t, connection.Close())
	send(t, ctx, sender, "3")
	_, again := begin(t, &amqp.ConnOptions{ContainerID: container})
	receiver = newReceiver(t, ctx, again, "amq.topic/"+key, options)
	same(t, take(t, ctx, receiver), "2")
	same(t, take(t, ctx, receiver), "3")
	must(t, receiver.Close(ctx)) // which ends the subscription
	refused(t, sender.Send(ctx, amqp.NewMessage([]byte("nobody listens")), nil), amqp.ErrCondNotFound)
}

func TestASharedSubscription(t *testing.T) {
	key, name := unique("key"), unique("shared")
	ctx, publishing := begin(t, nil)
	var receivers []*amqp.Receiver
	for range 2 {
		_, session := begin(t, nil)
		receivers = append(receivers, newReceiver(t, ctx, session, "amq.topic/"+key, &amqp.ReceiverOptions{
			Name: name + "|global", SourceCapabilities: []string{"shared", "global", "topic"}, Credit: 5}))
	}
	sender := newSender(t, ctx, publishing, "amq.topic/"+key)
	seen := map[string]bool{}
	for _, text := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"} {
		send(t, ctx, sender, text)
	}
	for _, receiver := range receivers {
		for range 5 {
			message := receive(t, ctx, receiver)
			seen[string(message.GetData())] = true
		}
	}
	same(t, len(seen), 10)
}

func TestAConnectionThatIsClosed(t *testing.T) {
	ctx := limited(t)
	connection := dial(t, ctx, nil)
	session, err := connection.NewSession(ctx, nil)
	must(t, err)
	sender := newSender(t, ctx, session, "amq.topic/x")
	must(t, connection.Close())
	var closed *amqp.ConnError
	if err := sender.Send(ctx, amqp.NewMessage(nil), nil); !errors.As(err, &closed) {
		t.Fatalf("got %v", err)
	}
	<-connection.Done()
}
