// Conformance tests with go-amqp, AMQP 1.0 for Go. AMQP_URL says where the broker is.
package interop10

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
)

// A guard against hanging only.
const deadline = 20 * time.Second

func address() string {
	if found := os.Getenv("AMQP_URL"); found != "" {
		return found
	}
	return "amqp://guest:guest@127.0.0.1:5672/"
}

func unique(role string) string {
	return fmt.Sprintf("%s-%012x", role, rand.Int63())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %T %#v, want %T %#v", got, got, want, want)
	}
}

// refused checks that the broker refused for this reason.
func refused(t *testing.T, err error, condition amqp.ErrCond) {
	t.Helper()
	var broker *amqp.Error
	if !errors.As(err, &broker) {
		t.Fatalf("got %v, want %s", err, condition)
	}
	same(t, broker.Condition, condition)
}

// detached checks that the broker ended a link for this reason.
func detached(t *testing.T, err error, condition amqp.ErrCond) {
	t.Helper()
	var link *amqp.LinkError
	if !errors.As(err, &link) || link.RemoteErr == nil {
		t.Fatalf("got %v, want a detach with %s", err, condition)
	}
	same(t, link.RemoteErr.Condition, condition)
}

// limited gives a context that ends with the test, or at the deadline.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// dial opens a connection, which is closed when the test ends.
func dial(t *testing.T, ctx context.Context, options *amqp.ConnOptions) *amqp.Conn {
	t.Helper()
	connection, err := amqp.Dial(ctx, address(), options)
	must(t, err)
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// begin opens a connection with a session.
func begin(t *testing.T, options *amqp.ConnOptions) (context.Context, *amqp.Session) {
	t.Helper()
	ctx := limited(t)
	session, err := dial(t, ctx, options).NewSession(ctx, nil)
	must(t, err)
	return ctx, session
}

// queue makes a queue that is gone with its receiver.
func queue(t *testing.T, ctx context.Context, session *amqp.Session) (*amqp.Receiver, string) {
	t.Helper()
	receiver, err := session.NewReceiver(ctx, "", &amqp.ReceiverOptions{DynamicAddress: true, Credit: 10})
	must(t, err)
	return receiver, receiver.Address()
}

// keep makes a queue that lasts as long as the session: who had it made takes nothing from it.
func keep(t *testing.T, ctx context.Context, session *amqp.Session) string {
	t.Helper()
	receiver, err := session.NewReceiver(ctx, "", &amqp.ReceiverOptions{DynamicAddress: true, Credit: -1})
	must(t, err)
	return receiver.Address()
}

func newSender(t *testing.T, ctx context.Context, session *amqp.Session, address string) *amqp.Sender {
	t.Helper()
	sender, err := session.NewSender(ctx, address, nil)
	must(t, err)
	return sender
}

func newReceiver(t *testing.T, ctx context.Context, session *amqp.Session, address string,
	options *amqp.ReceiverOptions) *amqp.Receiver {
	t.Helper()
	receiver, err := session.NewReceiver(ctx, address, options)
	must(t, err)
	return receiver
}

func send(t *testing.T, ctx context.Context, sender *amqp.Sender, texts ...string) {
	t.Helper()
	for _, text := range texts {
		must(t, sender.Send(ctx, amqp.NewMessage([]byte(text)), nil))
	}
}

func receive(t *testing.T, ctx context.Context, receiver *amqp.Receiver) *amqp.Message {
	t.Helper()
	message, err := receiver.Receive(ctx, nil)
	must(t, err)
	return message
}

// take receives a message and accepts it.
func take(t *testing.T, ctx context.Context, receiver *amqp.Receiver) string {
	t.Helper()
	message := receive(t, ctx, receiver)
	must(t, receiver.AcceptMessage(ctx, message))
	return string(message.GetData())
}

// empty checks that nothing is in a queue that nobody else receives from: what is sent now comes first.
func empty(t *testing.T, ctx context.Context, session *amqp.Session, address string) {
	t.Helper()
	send(t, ctx, newSender(t, ctx, session, address), "marker")
	receiver := newReceiver(t, ctx, session, address, nil)
	same(t, take(t, ctx, receiver), "marker")
	must(t, receiver.Close(ctx))
}
