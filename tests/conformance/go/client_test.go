package interop

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"reflect"
	"sort"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

var large = bytes.Repeat([]byte("dragoman"), 400_000)

// Connecting

func TestConnecting(t *testing.T) {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("conformance")
	connection, err := amqp.DialConfig(address(), amqp.Config{
		Heartbeat: 5 * time.Second, ChannelMax: 50, FrameSize: 8192, Locale: "en_US", Properties: properties})
	must(t, err)
	equal(t, connection.Config.ChannelMax, 50)
	equal(t, connection.Config.FrameSize, 8192)
	equal(t, connection.Config.Heartbeat, 5*time.Second)
	equal(t, connection.Major, 0)
	equal(t, connection.Minor, 9)
	capabilities := connection.Properties["capabilities"].(amqp.Table)
	for _, each := range []string{"publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked",
		"exchange_exchange_bindings", "authentication_failure_close", "direct_reply_to"} {
		equal(t, capabilities[each], any(true))
	}
	channel, err := connection.Channel()
	must(t, err)
	queue, err := channel.QueueDeclare("", false, false, true, false, nil)
	must(t, err)
	must(t, channel.Publish("", queue.Name, false, false, amqp.Publishing{Body: large}))
	until(t, "the message", func() bool {
		delivery, ok, err := channel.Get(queue.Name, true)
		must(t, err)
		return ok && bytes.Equal(delivery.Body, large)
	})
	closed := connection.NotifyClose(make(chan *amqp.Error, 1))
	must(t, connection.Close())
	if err, open := <-closed; open {
		t.Fatalf("an error at a clean close: %v", err)
	}
	equal(t, connection.IsClosed(), true)
}

func TestMechanisms(t *testing.T) {
	for _, each := range []amqp.Authentication{
		&amqp.PlainAuth{Username: "guest", Password: "guest"}, &amqp.AMQPlainAuth{Username: "guest", Password: "guest"}} {
		connection, err := amqp.DialConfig(address(), amqp.Config{SASL: []amqp.Authentication{each}})
		must(t, err)
		must(t, connection.Close())
	}
	_, err := amqp.DialConfig(address(), amqp.Config{SASL: []amqp.Authentication{&amqp.ExternalAuth{}}})
	equal(t, err, error(amqp.ErrSASL))
}

func TestRefusedLogins(t *testing.T) {
	for _, each := range []amqp.Authentication{
		&amqp.PlainAuth{Username: "guest", Password: "wrong"}, &amqp.PlainAuth{Username: "nobody", Password: "guest"},
		&amqp.AMQPlainAuth{Username: "guest", Password: "wrong"}} {
		_, err := amqp.DialConfig(address(), amqp.Config{SASL: []amqp.Authentication{each}})
		refused(t, err, amqp.AccessRefused)
	}
}

func TestUnknownVirtualHost(t *testing.T) {
	where, err := url.Parse(address())
	must(t, err)
	where.Path = "/no-such-host"
	_, err = amqp.Dial(where.String())
	refused(t, err, amqp.NotAllowed)
}

func TestNewSecret(t *testing.T) {
	must(t, open(t).connection.UpdateSecret("guest", "rotation"))
}

func TestManyChannels(t *testing.T) {
	c := open(t)
	queue := c.queue(nil)
	for number := 0; number < 300; number++ {
		must(t, c.another().Publish("", queue, false, false, amqp.Publishing{Body: []byte{byte(number)}}))
	}
	c.depth(queue, 300)
}

func TestHeartbeats(t *testing.T) {
	connection, err := amqp.DialConfig(address(), amqp.Config{Heartbeat: time.Second})
	must(t, err)
	time.Sleep(3500 * time.Millisecond)
	_, err = connection.Channel()
	must(t, err)
	must(t, connection.Close())
}

// Declaring

func TestExchanges(t *testing.T) {
	c := open(t)
	for _, kind := range []string{amqp.ExchangeDirect, amqp.ExchangeFanout, amqp.ExchangeTopic, amqp.ExchangeHeaders,
		"x-consistent-hash"} {
		for options := 0; options < 8; options++ {
			durable, autoDelete, internal := options&1 > 0, options&2 > 0, options&4 > 0
			exchange := c.exchangeName()
			must(t, c.channel.ExchangeDeclare(exchange, kind, durable, autoDelete, internal, options%2 > 0, nil))
			must(t, c.channel.ExchangeDeclare(exchange, kind, durable, autoDelete, internal, false, nil))
			must(t, c.channel.ExchangeDeclarePassive(exchange, kind, durable, autoDelete, internal, false, nil))
			refused(t, c.another().ExchangeDeclare(exchange, kind, !durable, autoDelete, internal, false, nil),
				amqp.PreconditionFailed)
			must(t, c.channel.ExchangeDelete(exchange, true, false))
			refused(t, c.another().ExchangeDeclarePassive(exchange, kind, durable, autoDelete, internal, false, nil),
				amqp.NotFound)
		}
	}
	refused(t, c.another().ExchangeDeclare("amq.mine", "direct", true, false, false, false, nil), amqp.AccessRefused)
}

func TestAnUnknownExchangeTypeEndsTheConnection(t *testing.T) {
	c := open(t)
	closed := c.connection.NotifyClose(make(chan *amqp.Error, 1))
	refused(t, c.channel.ExchangeDeclare(name("exchange"), "no-such-type", true, false, false, false, nil),
		amqp.CommandInvalid)
	equal(t, next(t, "the close", closed).Code, amqp.CommandInvalid)
}

func TestQueues(t *testing.T) {
	c := open(t)
	arguments := amqp.Table{
		amqp.QueueMaxLenArg: int32(10), amqp.QueueMaxLenBytesArg: int64(100_000), amqp.QueueMessageTTLArg: int32(60_000),
		amqp.QueueTTLArg: int32(600_000), amqp.QueueOverflowArg: amqp.QueueOverflowRejectPublish,
		amqp.QueueTypeArg: amqp.QueueTypeClassic, "x-dead-letter-exchange": "", "x-max-priority": int32(5),
		"x-unheard-of": amqp.Table{"a": []any{int32(1)}}}
	queue := c.queue(arguments)
	_, err := c.channel.QueueDeclare(queue, true, false, false, false, arguments)
	must(t, err)
	_, err = c.another().QueueDeclare(queue, true, false, false, false, nil)
	refused(t, err, amqp.PreconditionFailed)
	_, err = c.another().QueueDeclare(queue, true, true, false, false, arguments)
	refused(t, err, amqp.PreconditionFailed)
	c.publish("", queue, "x")
	c.depth(queue, 1)
	found, err := c.channel.QueueInspect(queue)
	must(t, err)
	equal(t, found, amqp.Queue{Name: queue, Messages: 1})
	_, err = c.another().QueueDelete(queue, false, true, false)
	refused(t, err, amqp.PreconditionFailed)
	purged, err := c.channel.QueuePurge(queue, false)
	must(t, err)
	equal(t, purged, 1)
	_, err = c.channel.QueuePurge(queue, true)
	must(t, err)
	_, err = c.channel.QueueDelete(queue, true, true, false)
	must(t, err)
	_, err = c.another().QueueDeclarePassive(queue, true, false, false, false, nil)
	refused(t, err, amqp.NotFound)
	_, err = c.channel.QueueDelete(queue, false, false, true)
	must(t, err)

	own, err := c.channel.QueueDeclare("", false, false, true, false, nil)
	must(t, err)
	other := open(t)
	_, err = other.channel.QueueDeclarePassive(own.Name, false, false, true, false, nil)
	refused(t, err, amqp.ResourceLocked)
}

func TestRouting(t *testing.T) {
	c := open(t)
	direct, fanout, topic, headers := c.exchange("direct", nil), c.exchange("fanout", nil), c.exchange("topic", nil),
		c.exchange("headers", nil)
	queue := c.queue(nil)
	must(t, c.channel.QueueBind(queue, "key", direct, false, amqp.Table{"note": "n"}))
	must(t, c.channel.QueueBind(queue, "ignored", fanout, false, nil))
	must(t, c.channel.QueueBind(queue, "a.*.#", topic, true, nil))
	must(t, c.channel.QueueBind(queue, "", headers, false, amqp.Table{"x-match": "all", "a": int32(1), "b": "two"}))
	must(t, c.channel.ExchangeBind(direct, "to.direct", topic, false, nil))
	c.publish(direct, "key", "direct")
	c.publish(direct, "other", "lost")
	c.publish(fanout, "", "fanout")
	c.publish(topic, "a.b.c", "topic")
	c.publish(topic, "a", "lost")
	must(t, c.channel.Publish(headers, "", false, false, amqp.Publishing{
		Headers: amqp.Table{"a": int32(1), "b": "two", "c": nil}, Body: []byte("headers")}))
	must(t, c.channel.Publish(headers, "", false, false, amqp.Publishing{Headers: amqp.Table{"a": int32(1)}}))
	c.publish("", queue, "default")
	c.depth(queue, 5)
	equal(t, fmt.Sprint(c.drain(queue)), "[direct fanout topic headers default]")
	must(t, c.channel.QueueUnbind(queue, "key", direct, amqp.Table{"note": "n"}))
	must(t, c.channel.ExchangeUnbind(direct, "to.direct", topic, false, nil))
	c.publish(direct, "key", "lost")
	equal(t, len(c.drain(queue)), 0)
	refused(t, c.another().QueueBind("no-such-queue", "", direct, false, nil), amqp.NotFound)
	refused(t, c.another().QueueBind(queue, "", "no-such-exchange", false, nil), amqp.NotFound)
	refused(t, c.another().ExchangeBind("no-such-exchange", "", direct, false, nil), amqp.NotFound)
}

func TestAlternateExchange(t *testing.T) {
	c := open(t)
	alternate := c.exchange("fanout", nil)
	main := c.exchange("direct", amqp.Table{"alternate-exchange": alternate})
	queue := c.queue(nil)
	must(t, c.channel.QueueBind(queue, "", alternate, false, nil))
	c.publish(main, "unknown", "rest")
	equal(t, string(c.get(queue, true).Body), "rest")
}

// Messages

func TestPropertiesSurvive(t *testing.T) {
	c := open(t)
	queue := c.queue(nil)
	sent := amqp.Publishing{
		Headers: amqp.Table{
			"bool": true, "byte": byte(200), "int8": int8(-128), "int16": int16(-32768), "int32": int32(-1 << 31),
			"int64": int64(-1 << 63), "uint16": uint16(65535), "uint32": uint32(1<<32 - 1), "float32": float32(0.1),
			"float64": 0.1, "decimal": amqp.Decimal{Scale: 2, Value: 314}, "string": "grüße", "nil": nil,
			"bytes": []byte{0, 255, 254}, "time": time.Unix(1_700_000_000, 0), "empty": amqp.Table{},
			"list":  []any{int32(1), "two", []any{nil, amqp.Table{"three": int8(3)}}},
			"table": amqp.Table{"deep": amqp.Table{"deeper": true}}},
		ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Priority: 9,
		CorrelationId: "correlation", ReplyTo: "reply", Expiration: "3600000", MessageId: "id",
		Timestamp: time.Unix(1_700_000_000, 0), Type: "kind", UserId: "guest", AppId: "app", Body: []byte("body")}
	must(t, c.channel.Publish("", queue, false, false, sent))
	got := c.get(queue, true)
	for key, want := range sent.Headers {
		if !reflect.DeepEqual(got.Headers[key], want) {
			t.Errorf("header %s: got %#v, want %#v", key, got.Headers[key], want)
		}
	}
	back := amqp.Publishing{
		Headers: sent.Headers, ContentType: got.ContentType, ContentEncoding: got.ContentEncoding,
		DeliveryMode: got.DeliveryMode, Priority: got.Priority, CorrelationId: got.CorrelationId, ReplyTo: got.ReplyTo,
		Expiration: got.Expiration, MessageId: got.MessageId, Timestamp: got.Timestamp, Type: got.Type,
		UserId: got.UserId, AppId: got.AppId, Body: got.Body}
	if !reflect.DeepEqual(back, sent) {
		t.Fatalf("got %#v, want %#v", back, sent)
	}
	equal(t, len(got.Headers), len(sent.Headers))
	equal(t, got.RoutingKey, queue)
	equal(t, got.Redelivered, false)
}

func TestBodies(t *testing.T) {
	c := open(t)
	queue := c.queue(nil)
	for _, size := range []int{0, 1, 131_064, 131_065, len(large)} {
		must(t, c.channel.Publish("", queue, false, false, amqp.Publishing{Body: large[:size]}))
		equal(t, bytes.Equal(c.get(queue, true).Body, large[:size]), true)
	}
}

func TestDeadLetters(t *testing.T) {
	c := open(t)
	dead := c.queue(nil)
	queue := c.queue(amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
		amqp.QueueMaxLenArg: int32(1)})
	reasons := []string{}
	death := func() amqp.Table {
		delivery := c.get(dead, true)
		first := delivery.Headers["x-death"].([]any)[0].(amqp.Table)
		reasons = append(reasons, first["reason"].(string))
		equal(t, first["queue"], any(queue))
		equal(t, first["count"], any(int64(1)))
		return first
	}
	must(t, c.channel.Publish("", queue, false, false, amqp.Publishing{Expiration: "1"}))
	equal(t, death()["original-expiration"], any("1"))
	c.publish("", queue, "1")
	c.publish("", queue, "2")
	death()
	must(t, c.get(queue, false).Reject(false))
	death()
	c.publish("", queue, "3")
	must(t, c.get(queue, false).Nack(false, false))
	death()
	equal(t, fmt.Sprint(reasons), "[expired maxlen rejected rejected]")
}

func TestMessagePriorities(t *testing.T) {
	c := open(t)
	queue := c.queue(amqp.Table{"x-max-priority": int32(3)})
	for number, priority := range []uint8{0, 3, 1, 2, 9} {
		must(t, c.channel.Publish("", queue, false, false,
			amqp.Publishing{Priority: priority, Body: []byte{byte('0' + number)}}))
	}
	c.depth(queue, 5)
	equal(t, fmt.Sprint(c.drain(queue)), "[1 4 3 2 0]")
}

// Publishing

func TestConfirms(t *testing.T) {
	c := open(t)
	queue := c.queue(amqp.Table{amqp.QueueMaxLenArg: int32(95), amqp.QueueOverflowArg: amqp.QueueOverflowRejectPublish})
	must(t, c.channel.Confirm(false))
	confirms := c.channel.NotifyPublish(make(chan amqp.Confirmation, 200))
	equal(t, c.channel.GetNextPublishSeqNo(), 1)
	for number := 0; number < 100; number++ {
		must(t, c.channel.Publish("", queue, false, false, amqp.Publishing{DeliveryMode: uint8(1 + number%2)}))
	}
	for number := 1; number <= 100; number++ {
		equal(t, next(t, "a confirm", confirms), amqp.Confirmation{DeliveryTag: uint64(number), Ack: number <= 95})
	}
}

func TestDeferredConfirms(t *testing.T) {
	c := open(t)
	queue := c.queue(nil)
	must(t, c.channel.Confirm(false))
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	waiting := []*amqp.DeferredConfirmation{}
	for number := 0; number < 50; number++ {
		made, err := c.channel.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent})
		must(t, err)
		waiting = append(waiting, made)
	}
	for number, each := range waiting {
		acked, err := each.WaitContext(ctx)
		must(t, err)
		equal(t, acked, true)
		equal(t, each.DeliveryTag, uint64(number+1))
	}
	c.depth(queue, 50)
}

func TestReturns(t *testing.T) {
	c := open(t)
	returns := c.channel.NotifyReturn(make(chan amqp.Return, 1))
	must(t, c.channel.PublishWithContext(context.Background(), "amq.direct", "nowhere", true, false,
		amqp.Publishing{MessageId: "7", Body: []byte("back")}))
	got := next(t, "the return", returns)
	equal(t, got.ReplyCode, amqp.NoRoute)
	equal(t, got.ReplyText, "NO_ROUTE")
	equal(t, got.Exchange+" "+got.RoutingKey+" "+got.MessageId+" "+string(got.Body), "amq.direct nowhere 7 back")
}

func TestPublishingToNowhereClosesTheChannel(t *testing.T) {
	c := open(t)
	closed := c.channel.NotifyClose(make(chan *amqp.Error, 1))
	c.publish("no-such-exchange", "", "x")
	equal(t, next(t, "the close", closed).Code, amqp.NotFound)
	equal(t, c.channel.IsClosed(), true)
	equal(t, c.channel.Publish("", "x", false, false, amqp.Publishing{}), error(amqp.ErrClosed))
	c.another()
}

func TestImmediateIsNotServed(t *testing.T) {
	c := open(t)
	closed := c.connection.NotifyClose(make(chan *amqp.Error, 1))
	must(t, c.channel.Publish("", "x", false, true, amqp.Publishing{}))
	equal(t, next(t, "the close", closed).Code, amqp.NotImplemented)
}

func TestTransactions(t *testing.T) {
	c := open(t)
	queue := c.queue(nil)
	channel := c.another()
	must(t, channel.Tx())
	must(t, channel.Publish("", queue, false, false, amqp.Publishing{Body: []byte("no")}))
	must(t, channel.TxRollback())
	must(t, channel.Publish("", queue, false, false, amqp.Publishing{Body: []byte("yes")}))
	equal(t, len(c.drain(queue)), 0)
	must(t, channel.TxCommit())
	equal(t, fmt.Sprint(c.drain(queue)), "[yes]")
	refused(t, channel.Confirm(false), amqp.PreconditionFailed)
}

// Consuming

func TestOutcomes(t *testing.T) {
	c := open(t)
	queue := c.queue(nil)
	for _, body := range []string{"a", "b", "c", "d", "e"} {
		c.publish("", queue, body)
	}
	c.depth(queue, 5)
	got := []amqp.Delivery{}
	for range []int{1, 2, 3, 4, 5} {
		got = append(got, c.get(queue, false))
	}
	equal(t, got[0].MessageCount, 4)
	must(t, got[1].Ack(true))
	must(t, got[2].Nack(false, false))
	must(t, got[3].Nack(false, true))
	must(t, got[4].Reject(true))
	c.depth(queue, 2)
	again := c.get(queue, false)
	equal(t, string(again.Body), "d")
	equal(t, again.Redelivered, true)
	must(t, c.channel.Recover(true))
	c.depth(queue, 2)
	equal(t, fmt.Sprint(c.drain(queue)), "[d e]")
	closed := c.channel.NotifyClose(make(chan *amqp.Error, 1))
	must(t, c.channel.Ack(99, false))
	equal(t, next(t, "the close", closed).Code, amqp.PreconditionFailed)
}

func TestConsuming(t *testing.T) {
	c := open(t)
	queue := c.queue(nil)
	must(t, c.channel.Qos(10, 0, false))
	deliveries, err := c.channel.Consume(queue, "mine", false, false, false, false, amqp.Table{"x-priority": int32(1)})
	must(t, err)
	publisher := c.another()
	for number := 0; number < 2000; number++ {
		must(t, publisher.Publish("", queue, false, false, amqp.Publishing{Body: []byte(fmt.Sprint(number))}))
	}
	for number := 0; number < 2000; number++ {
		delivery := next(t, "a delivery", deliveries)
		equal(t, string(delivery.Body), fmt.Sprint(number))
		equal(t, delivery.ConsumerTag, "mine")
		must(t, delivery.Ack(number%7 == 0))
	}
	must(t, c.channel.Cancel("mine", false))
	if _, still := <-deliveries; still {
		t.Fatal("a delivery after the cancel")
	}
	c.depth(queue, 0)
}

func TestPrefetch(t *testing.T) {
	for _, shared := range []bool{false, true} {
		c := open(t)
		queue := c.queue(nil)
		for number := 0; number < 20; number++ {
			c.publish("", queue, "x")
		}
		c.depth(queue, 20)
		must(t, c.channel.Qos(3, 0, shared))
		all := make(chan amqp.Delivery, 100)
		for consumer := 0; consumer < 2; consumer++ {
			deliveries, err := c.channel.Consume(queue, "", false, false, false, false, nil)
			must(t, err)
			go func() {
				for delivery := range deliveries {
					all <- delivery
				}
			}()
		}
		expected := 6
		if shared {
			expected = 3
		}
		c.depth(queue, 20-expected)
		until(t, "the prefetch", func() bool { return len(all) == expected })
		var last uint64
		for number := 0; number < expected; number++ {
			if delivery := <-all; delivery.DeliveryTag > last {
				last = delivery.DeliveryTag
			}
		}
		must(t, c.channel.Ack(last, true))
		until(t, "the next ones", func() bool { return len(all) == expected })
	}
}

func TestConsumerKinds(t *testing.T) {
	c := open(t)
	queue := c.queue(nil)
	_, err := c.channel.Consume(queue, "alone", true, true, false, false, nil)
	must(t, err)
	_, err = c.another().Consume(queue, "", true, false, false, false, nil)
	refused(t, err, amqp.AccessRefused)
	must(t, c.channel.Cancel("alone", true))
	ctx, cancel := context.WithCancel(context.Background())
	deliveries, err := c.channel.ConsumeWithContext(ctx, queue, "", true, false, true, false, nil)
	must(t, err)
	c.publish("", queue, "x")
	equal(t, string(next(t, "the delivery", deliveries).Body), "x")
	cancel()
	until(t, "the cancel", func() bool {
		found, err := c.channel.QueueInspect(queue)
		must(t, err)
		return found.Consumers == 0
	})
	_, err = c.another().Consume("no-such-queue", "", true, false, false, false, nil)
	refused(t, err, amqp.NotFound)
}

func TestSingleActiveConsumer(t *testing.T) {
	c := open(t)
	queue := c.queue(amqp.Table{amqp.SingleActiveConsumerArg: true})
	first, err := c.channel.Consume(queue, "first", true, false, false, false, nil)
	must(t, err)
	second, err := c.channel.Consume(queue, "second", true, false, false, false, nil)
	must(t, err)
	c.publish("", queue, "1")
	next(t, "the delivery", first)
	must(t, c.channel.Cancel("first", false))
	c.publish("", queue, "2")
	next(t, "the delivery", second)
}

func TestCancelByTheBroker(t *testing.T) {
	c := open(t)
	queue := c.queue(nil)
	cancelled := c.channel.NotifyCancel(make(chan string, 1))
	deliveries, err := c.channel.Consume(queue, "mine", true, false, false, false, nil)
	must(t, err)
	_, err = c.another().QueueDelete(queue, false, false, false)
	must(t, err)
	equal(t, next(t, "the cancel", cancelled), "mine")
	if _, still := <-deliveries; still {
		t.Fatal("a delivery after the cancel")
	}
}

func TestDirectReplyTo(t *testing.T) {
	c := open(t)
	queue := c.queue(nil)
	server := c.another()
	requests, err := server.Consume(queue, "", true, false, false, false, nil)
	must(t, err)
	go func() {
		for request := range requests {
			server.Publish("", request.ReplyTo, false, false,
				amqp.Publishing{CorrelationId: request.CorrelationId, Body: append(request.Body, '!')})
		}
	}()
	replies, err := c.channel.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil)
	must(t, err)
	got := []string{}
	for number := 0; number < 10; number++ {
		must(t, c.channel.Publish("", queue, false, false, amqp.Publishing{
			ReplyTo: "amq.rabbitmq.reply-to", CorrelationId: fmt.Sprint(number), Body: []byte(fmt.Sprint(number))}))
	}
	for number := 0; number < 10; number++ {
		reply := next(t, "a reply", replies)
		got = append(got, reply.CorrelationId+string(reply.Body))
	}
	sort.Strings(got)
	equal(t, got[3], "33!")
}

func TestFlow(t *testing.T) {
	must(t, open(t).channel.Flow(true))
}

// Trouble

func TestALostNetworkIsTold(t *testing.T) {
	broken := newNetwork(t)
	connection, err := amqp.Dial(broken.url(t))
	must(t, err)
	channel, err := connection.Channel()
	must(t, err)
	closed := connection.NotifyClose(make(chan *amqp.Error, 1))
	broken.cut()
	next(t, "the close", closed)
	until(t, "the channel's close", channel.IsClosed)
}

func TestRecovery(t *testing.T) {
	broken := newNetwork(t)
	c := open(t)
	connection, err := amqp.DialConfig(broken.url(t), amqp.Config{Recovery: &amqp.Recovery{
		ReconnectionConfig: &amqp.ReconnectionConfig{MaxRetryCount: 50, RetryInterval: 50 * time.Millisecond}}})
	must(t, err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(t, err)
	exchange, queue := c.exchangeName(), c.queueName()
	must(t, channel.ExchangeDeclare(exchange, "topic", false, true, false, false, nil))
	_, err = channel.QueueDeclare(queue, false, true, false, false, nil)
	must(t, err)
	must(t, channel.QueueBind(queue, "a.*", exchange, false, nil))
	deliveries, err := channel.Consume(queue, "mine", true, false, false, false, nil)
	must(t, err)
	for round := 0; round < 3; round++ {
		c.publish(exchange, "a.b", fmt.Sprint(round))
		equal(t, string(next(t, "the delivery", deliveries).Body), fmt.Sprint(round))
		if round < 2 {
			broken.cut()
			until(t, "the consumer's return", func() bool {
				found, err := c.another().QueueDeclarePassive(queue, false, true, false, false, nil)
				return err == nil && found.Consumers == 1 && !connection.IsClosed()
			})
		}
	}
}
