package interop10

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
)

func TestTypes(t *testing.T) {
	ctx, session := begin(t, nil)
	receiver, address := queue(t, ctx, session)
	sender := newSender(t, ctx, session, address)
	for _, value := range []any{true, uint8(255), uint16(65535), uint32(1<<32 - 1), uint64(1<<64 - 1), int8(-128),
		int16(-32768), int32(-1 << 31), int64(-1 << 63), float32(1.5), -0.1, "text", []byte{0, 255},
		amqp.UUID{1, 2, 3}, time.UnixMilli(-1000), nil, []any{int64(1), "two", nil},
		map[string]any{"a": int64(1)}, []int32{-1, 2}, []string{"a", "b"}, []amqp.Symbol{"a", "b"}} {
		must(t, sender.Send(ctx, &amqp.Message{Value: value, ApplicationProperties: map[string]any{"key": "value"}}, nil))
		message := receive(t, ctx, receiver)
		must(t, receiver.AcceptMessage(ctx, message))
		same(t, message.Value, value)
		same(t, message.ApplicationProperties["key"], any("value"))
	}
	must(t, sender.Send(ctx, &amqp.Message{Value: amqp.Symbol("symbol")}, nil))
	same(t, receive(t, ctx, receiver).Value, any("symbol")) // go-amqp makes a string of it
}

func TestAllOfAMessage(t *testing.T) {
	ctx, session := begin(t, nil)
	receiver, address := queue(t, ctx, session)
	text := func(value string) *string { return &value }
	created, expires := time.UnixMilli(1500000000123), time.UnixMilli(4100000000000)
	group := uint32(3)
	sent := &amqp.Message{
		Header:      &amqp.MessageHeader{Durable: true, Priority: 7, TTL: time.Minute},
		Annotations: amqp.Annotations{"x-opt-mine": "note"},
		Properties: &amqp.MessageProperties{MessageID: uint64(1 << 63), UserID: []byte("guest"), To: text("to"),
			Subject: text("subject"), ReplyTo: text("reply"), CorrelationID: amqp.UUID{1}, ContentType: text("a/b"),
			ContentEncoding: text("gzip"), AbsoluteExpiryTime: &expires, CreationTime: &created, GroupID: text("group"),
			GroupSequence: &group, ReplyToGroupID: text("other")},
		ApplicationProperties: map[string]any{"n": int32(5), "null": nil},
		Data:                  [][]byte{[]byte("one"), {}, []byte("three")},
		Footer:                amqp.Annotations{"x-opt-hash": "sum"},
	}
	must(t, newSender(t, ctx, session, address).Send(ctx, sent, nil))
	got := receive(t, ctx, receiver)
	must(t, receiver.AcceptMessage(ctx, got))
	same(t, got.Header.Durable, true)
	same(t, got.Header.Priority, uint8(7))
	same(t, got.Header.FirstAcquirer, true)
	same(t, got.Header.TTL > 0 && got.Header.TTL <= time.Minute, true)
	same(t, got.Properties, sent.Properties)
	same(t, got.ApplicationProperties, sent.ApplicationProperties)
	same(t, got.Data, sent.Data)
	same(t, got.Footer, sent.Footer)
	same(t, got.Annotations["x-opt-mine"], any("note"))
}

func TestSequences(t *testing.T) {
	ctx, session := begin(t, nil)
	receiver, address := queue(t, ctx, session)
	sequences := [][]any{{int64(1), "two"}, {nil, true}}
	must(t, newSender(t, ctx, session, address).Send(ctx, &amqp.Message{Sequence: sequences}, nil))
	message := receive(t, ctx, receiver)
	must(t, receiver.AcceptMessage(ctx, message))
	same(t, message.Sequence, sequences)
}

func TestSettlement(t *testing.T) {
	ctx, session := begin(t, nil)
	receiver, address := queue(t, ctx, session)
	send(t, ctx, newSender(t, ctx, session, address), "again")
	must(t, receiver.ReleaseMessage(ctx, receive(t, ctx, receiver)))
	message := receive(t, ctx, receiver)
	same(t, message.Header.DeliveryCount, uint32(0))
	same(t, message.Header.FirstAcquirer, false)
	must(t, receiver.ModifyMessage(ctx, message, &amqp.ModifyMessageOptions{DeliveryFailed: true,
		Annotations: amqp.Annotations{"x-opt-seen": int64(1)}}))
	message = receive(t, ctx, receiver)
	same(t, message.Header.DeliveryCount, uint32(1))
	same(t, message.Annotations["x-opt-seen"], any(int64(1)))
	must(t, receiver.RejectMessage(ctx, message, &amqp.Error{Condition: "app:bad", Description: "it is bad"}))
	send(t, ctx, newSender(t, ctx, session, address), "next")
	same(t, take(t, ctx, receiver), "next")
}

func TestUndeliverableHere(t *testing.T) {
	ctx, session := begin(t, nil)
	address := keep(t, ctx, session)
	here := newReceiver(t, ctx, session, address, &amqp.ReceiverOptions{Credit: 2})
	sender := newSender(t, ctx, session, address)
	send(t, ctx, sender, "not here")
	must(t, here.ModifyMessage(ctx, receive(t, ctx, here), &amqp.ModifyMessageOptions{UndeliverableHere: true}))
	send(t, ctx, sender, "here")
	same(t, take(t, ctx, here), "here")
	same(t, take(t, ctx, newReceiver(t, ctx, session, address, nil)), "not here")
}

func TestSettlesSecond(t *testing.T) {
	ctx, session := begin(t, nil)
	address := keep(t, ctx, session)
	receiver := newReceiver(t, ctx, session, address, &amqp.ReceiverOptions{
		SettlementMode: amqp.ReceiverSettleModeSecond.Ptr()})
	sender, err := session.NewSender(ctx, address, &amqp.SenderOptions{
		RequestedReceiverSettleMode: amqp.ReceiverSettleModeSecond.Ptr()})
	must(t, err)
	for range 20 {
		send(t, ctx, sender, "x") // comes back when we have settled what the broker has told
		same(t, take(t, ctx, receiver), "x")
	}
	must(t, receiver.Close(ctx))
	empty(t, ctx, session, address)
}

func TestPresettledBothWays(t *testing.T) {
	ctx, session := begin(t, nil)
	address := keep(t, ctx, session)
	receiver := newReceiver(t, ctx, session, address, &amqp.ReceiverOptions{Credit: 20,
		RequestedSenderSettleMode: amqp.SenderSettleModeSettled.Ptr()})
	settled, err := session.NewSender(ctx, address, &amqp.SenderOptions{
		SettlementMode: amqp.SenderSettleModeSettled.Ptr()})
	must(t, err)
	mixed := newSender(t, ctx, session, address)
	for range 10 {
		send(t, ctx, settled, "m")
		must(t, mixed.Send(ctx, amqp.NewMessage([]byte("m")), &amqp.SendOptions{Settled: true}))
	}
	for range 20 {
		same(t, string(receive(t, ctx, receiver).GetData()), "m")
	}
	must(t, receiver.Close(ctx))
	empty(t, ctx, session, address)
}

func TestReceipts(t *testing.T) {
	ctx, session := begin(t, nil)
	receiver, address := queue(t, ctx, session)
	anywhere := newSender(t, ctx, session, "")
	missing := "/queues/there-is-no-such-queue"
	var receipts []amqp.SendReceipt
	for _, to := range []string{address, missing, address} {
		receipt, err := anywhere.SendWithReceipt(ctx, &amqp.Message{Properties: &amqp.MessageProperties{To: &to},
			Data: [][]byte{[]byte(to)}}, nil)
		must(t, err)
		receipts = append(receipts, receipt)
	}
	for at, accepted := range []bool{true, false, true} {
		state, err := receipts[at].Wait(ctx)
		must(t, err)
		switch state := state.(type) {
		case *amqp.StateAccepted:
			same(t, accepted, true)
		case *amqp.StateRejected:
			same(t, accepted, false)
			same(t, state.Error.Condition, amqp.ErrCondNotFound)
		default:
			t.Fatalf("got %T", state)
		}
	}
	same(t, take(t, ctx, receiver), address)
	same(t, take(t, ctx, receiver), address)
}

func TestDrain(t *testing.T) {
	ctx, session := begin(t, nil)
	address := keep(t, ctx, session)
	receiver := newReceiver(t, ctx, session, address, &amqp.ReceiverOptions{Credit: -1})
	sender := newSender(t, ctx, session, address)
	must(t, receiver.DrainCredit(ctx, nil)) // of nothing
	for range 3 {
		send(t, ctx, sender, "a", "b")
		must(t, receiver.IssueCredit(10))
		same(t, take(t, ctx, receiver), "a")
		same(t, take(t, ctx, receiver), "b")
		must(t, receiver.DrainCredit(ctx, nil))
		send(t, ctx, sender, "c") // for which there is no credit any more
		same(t, receiver.Prefetched(), (*amqp.Message)(nil))
		must(t, receiver.IssueCredit(1))
		same(t, take(t, ctx, receiver), "c")
		must(t, receiver.DrainCredit(ctx, nil)) // all of it was used
	}
}

func TestSelector(t *testing.T) {
	ctx, session := begin(t, nil)
	address := keep(t, ctx, session)
	receiver := newReceiver(t, ctx, session, address, &amqp.ReceiverOptions{
		Filters: []amqp.LinkFilter{amqp.NewSelectorFilter("number > 1")}})
	same(t, receiver.LinkSourceFilterValue("apache.org:selector-filter:string"), any("number > 1"))
	sender := newSender(t, ctx, session, address)
	for number := range int64(3) {
		must(t, sender.Send(ctx, &amqp.Message{Value: number,
			ApplicationProperties: map[string]any{"number": number}}, nil))
	}
	message := receive(t, ctx, receiver)
	same(t, message.Value, any(int64(2)))
	must(t, receiver.AcceptMessage(ctx, message))
	_, err := session.NewReceiver(ctx, address, &amqp.ReceiverOptions{
		Filters: []amqp.LinkFilter{amqp.NewSelectorFilter("number > > 1")}})
	refused(t, err, amqp.ErrCondInvalidField)
}

func TestBrowsing(t *testing.T) {
	ctx, session := begin(t, nil)
	taker := newReceiver(t, ctx, session, "", &amqp.ReceiverOptions{DynamicAddress: true, Credit: -1})
	send(t, ctx, newSender(t, ctx, session, taker.Address()), "1", "2")
	for range 2 {
		browser := newReceiver(t, ctx, session, taker.Address(), &amqp.ReceiverOptions{Credit: 5,
			SourceDistributionMode: amqp.SourceDistributionModeCopy})
		for _, expected := range []string{"1", "2"} {
			same(t, string(receive(t, ctx, browser).GetData()), expected)
		}
		must(t, browser.Close(ctx))
	}
	must(t, taker.IssueCredit(2))
	same(t, take(t, ctx, taker), "1")
	same(t, take(t, ctx, taker), "2")
}

func TestLargeMessagesInSmallFrames(t *testing.T) {
	ctx, session := begin(t, &amqp.ConnOptions{MaxFrameSize: 1024})
	receiver, address := queue(t, ctx, session)
	large := bytes.Repeat([]byte("dragoman"), 400_000)
	must(t, newSender(t, ctx, session, address).Send(ctx, amqp.NewMessage(large), nil))
	message := receive(t, ctx, receiver)
	same(t, bytes.Equal(message.GetData(), large), true)
	must(t, receiver.AcceptMessage(ctx, message))
}

func TestManySendersAtOnce(t *testing.T) {
	ctx, session := begin(t, nil)
	address := keep(t, ctx, session)
	receiver := newReceiver(t, ctx, session, address, &amqp.ReceiverOptions{Credit: 100})
	const senders, each = 10, 100
	var wait sync.WaitGroup
	failures := make(chan error, senders)
	for range senders {
		sender := newSender(t, ctx, session, address)
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range each {
				if err := sender.Send(ctx, amqp.NewMessage([]byte("m")), nil); err != nil {
					failures <- err
					return
				}
			}
		}()
	}
	for range senders * each {
		same(t, take(t, ctx, receiver), "m")
	}
	wait.Wait()
	close(failures)
	must(t, <-failures)
	must(t, receiver.Close(ctx))
	empty(t, ctx, session, address)
}
