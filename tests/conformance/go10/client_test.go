// Conformance tests with go-amqp, AMQP 1.0 for Go. AMQP_URL says where the broker is.
package interop10

import (
	"bytes"
	"context"
	"errors"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
)

// A guard against hanging only.
const deadline = 20 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %#v, want %#v", got, want)
	}
}

// begin opens a connection with a session.
func begin(t *testing.T, options *amqp.ConnOptions) (context.Context, *amqp.Session) {
	address := os.Getenv("AMQP_URL")
	if address == "" {
		address = "amqp://guest:guest@127.0.0.1:5672/"
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	connection, err := amqp.Dial(ctx, address, options)
	must(t, err)
	t.Cleanup(func() {
		must(t, connection.Close())
		cancel()
	})
	session, err := connection.NewSession(ctx, nil)
	must(t, err)
	return ctx, session
}

// queue makes a queue that is gone with its receiver.
func queue(t *testing.T, ctx context.Context, session *amqp.Session) (*amqp.Receiver, string) {
	receiver, err := session.NewReceiver(ctx, "", &amqp.ReceiverOptions{DynamicAddress: true, Credit: 10})
	must(t, err)
	return receiver, receiver.Address()
}

func TestTypes(t *testing.T) {
	ctx, session := begin(t, nil)
	receiver, address := queue(t, ctx, session)
	sender, err := session.NewSender(ctx, address, nil)
	must(t, err)
	for _, value := range []any{true, uint8(255), uint16(65535), uint32(1<<32 - 1), uint64(1<<64 - 1), int8(-128),
		int16(-32768), int32(-1 << 31), int64(-1 << 63), float32(1.5), -0.1, "text", amqp.Symbol("symbol"),
		[]byte{0, 255}, amqp.UUID{1, 2, 3}, time.UnixMilli(-1000).UTC(), []any{int64(1), "two", nil},
		map[string]any{"a": int64(1)}} {
		must(t, sender.Send(ctx, &amqp.Message{Value: value,
			ApplicationProperties: map[string]any{"key": "value"}}, nil))
		message, err := receiver.Receive(ctx, nil)
		must(t, err)
		must(t, receiver.AcceptMessage(ctx, message))
		same(t, message.Value, value)
		same(t, message.ApplicationProperties["key"], any("value"))
	}
}

func TestSettlement(t *testing.T) {
	ctx, session := begin(t, nil)
	receiver, address := queue(t, ctx, session)
	sender, err := session.NewSender(ctx, address, nil)
	must(t, err)
	must(t, sender.Send(ctx, amqp.NewMessage([]byte("again")), nil))
	message, err := receiver.Receive(ctx, nil)
	must(t, err)
	must(t, receiver.ReleaseMessage(ctx, message))
	message, err = receiver.Receive(ctx, nil)
	must(t, err)
	must(t, receiver.ModifyMessage(ctx, message, &amqp.ModifyMessageOptions{DeliveryFailed: true,
		Annotations: amqp.Annotations{"x-opt-seen": int64(1)}}))
	message, err = receiver.Receive(ctx, nil)
	must(t, err)
	same(t, message.Header.DeliveryCount, uint32(1))
	same(t, message.Annotations["x-opt-seen"], any(int64(1)))
	must(t, receiver.RejectMessage(ctx, message, nil))
}

func TestSettlesSecond(t *testing.T) {
	ctx, session := begin(t, nil)
	_, address := queue(t, ctx, session)
	second := amqp.ReceiverSettleModeSecond
	receiver, err := session.NewReceiver(ctx, address, &amqp.ReceiverOptions{SettlementMode: &second})
	must(t, err)
	sender, err := session.NewSender(ctx, address, &amqp.SenderOptions{
		RequestedReceiverSettleMode: amqp.ReceiverSettleModeSecond.Ptr()})
	must(t, err)
	for range 20 {
		must(t, sender.Send(ctx, amqp.NewMessage([]byte("x")), nil))
	}
	must(t, receiver.Close(ctx))
}

func TestLarge(t *testing.T) {
	ctx, session := begin(t, &amqp.ConnOptions{MaxFrameSize: 1024})
	receiver, address := queue(t, ctx, session)
	sender, err := session.NewSender(ctx, address, nil)
	must(t, err)
	large := bytes.Repeat([]byte("dragoman"), 400_000)
	must(t, sender.Send(ctx, amqp.NewMessage(large), nil))
	message, err := receiver.Receive(ctx, nil)
	must(t, err)
	same(t, bytes.Equal(message.GetData(), large), true)
	must(t, receiver.AcceptMessage(ctx, message))
}

func TestRefusals(t *testing.T) {
	ctx, session := begin(t, nil)
	_, err := session.NewSender(ctx, "/queues/there-is-no-such-queue", nil)
	var refused *amqp.Error
	if !errors.As(err, &refused) {
		t.Fatalf("got %v", err)
	}
	same(t, refused.Condition, amqp.ErrCondNotFound)
	sender, err := session.NewSender(ctx, "/exchanges/amq.direct/nowhere", nil)
	must(t, err)
	err = sender.Send(ctx, amqp.NewMessage([]byte("x")), nil)
	if !errors.As(err, &refused) {
		t.Fatalf("got %v", err)
	}
	same(t, refused.Condition, amqp.ErrCondNotFound)
}

func TestSelector(t *testing.T) {
	ctx, session := begin(t, nil)
	_, address := queue(t, ctx, session)
	receiver, err := session.NewReceiver(ctx, address, &amqp.ReceiverOptions{
		Filters: []amqp.LinkFilter{amqp.NewSelectorFilter("number > 1")}})
	must(t, err)
	sender, err := session.NewSender(ctx, address, nil)
	must(t, err)
	for number := range int64(3) {
		must(t, sender.Send(ctx, &amqp.Message{Value: number,
			ApplicationProperties: map[string]any{"number": number}}, nil))
	}
	message, err := receiver.Receive(ctx, nil)
	must(t, err)
	same(t, message.Value, any(int64(2)))
	must(t, receiver.Close(ctx))
}
