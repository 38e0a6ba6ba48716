// Conformance tests with amqp091-go; tests/conformance/run_interop.py runs them. AMQP_URL says where the broker is.
package interop

import (
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A guard against hanging only.
const deadline = 20 * time.Second

func address() string {
	if found := os.Getenv("AMQP_URL"); found != "" {
		return found
	}
	return "amqp://guest:guest@127.0.0.1:5672/"
}

func name(role string) string {
	return fmt.Sprintf("%s-%012x", role, rand.Int63())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// refused checks that the broker refused with this code.
func refused(t *testing.T, err error, code int) {
	t.Helper()
	var broker *amqp.Error
	if !errors.As(err, &broker) {
		t.Fatalf("got %v, want an error with code %d", err, code)
	}
	if broker.Code != code {
		t.Fatalf("got %v, want code %d", broker, code)
	}
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func next[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case found, open := <-from:
		if !open {
			t.Fatalf("closed, waiting for %s", what)
		}
		return found
	case <-time.After(deadline):
		t.Fatalf("never came: %s", what)
	}
	panic("not reached")
}

// client is an open connection with one channel; what gets its names here is deleted when the test ends.
type client struct {
	*testing.T
	connection *amqp.Connection
	channel    *amqp.Channel
	queues     []string
	exchanges  []string
}

func open(t *testing.T) *client {
	t.Helper()
	connection, err := amqp.Dial(address())
	must(t, err)
	made := &client{T: t, connection: connection}
	made.channel = made.another()
	t.Cleanup(made.clean)
	return made
}

func (c *client) clean() {
	c.connection.Close()
	connection, err := amqp.Dial(address())
	must(c.T, err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(c.T, err)
	for _, queue := range c.queues {
		_, err := channel.QueueDelete(queue, false, false, false)
		must(c.T, err)
	}
	for _, exchange := range c.exchanges {
		must(c.T, channel.ExchangeDelete(exchange, false, false))
	}
}

func (c *client) another() *amqp.Channel {
	c.Helper()
	channel, err := c.connection.Channel()
	must(c.T, err)
	return channel
}

func (c *client) queueName() string {
	c.queues = append(c.queues, name("queue"))
	return c.queues[len(c.queues)-1]
}

func (c *client) exchangeName() string {
	c.exchanges = append(c.exchanges, name("exchange"))
	return c.exchanges[len(c.exchanges)-1]
}

func (c *client) queue(arguments amqp.Table) string {
	c.Helper()
	queue, err := c.channel.QueueDeclare(c.queueName(), true, false, false, false, arguments)
	must(c.T, err)
	return queue.Name
}

func (c *client) exchange(kind string, arguments amqp.Table) string {
	c.Helper()
	exchange := c.exchangeName()
	must(c.T, c.channel.ExchangeDeclare(exchange, kind, true, false, false, false, arguments))
	return exchange
}

func (c *client) publish(exchange, key, body string) {
	c.Helper()
	must(c.T, c.channel.Publish(exchange, key, false, false, amqp.Publishing{Body: []byte(body)}))
}

// get waits for the next message of a queue.
func (c *client) get(queue string, autoAck bool) amqp.Delivery {
	c.Helper()
	var found amqp.Delivery
	until(c.T, "a message in "+queue, func() bool {
		delivery, ok, err := c.channel.Get(queue, autoAck)
		must(c.T, err)
		found = delivery
		return ok
	})
	return found
}

func (c *client) drain(queue string) (bodies []string) {
	c.Helper()
	for {
		delivery, ok, err := c.channel.Get(queue, true)
		must(c.T, err)
		if !ok {
			return bodies
		}
		bodies = append(bodies, string(delivery.Body))
	}
}

func (c *client) depth(queue string, want int) {
	c.Helper()
	until(c.T, fmt.Sprintf("%d messages in %s", want, queue), func() bool {
		found, err := c.channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		must(c.T, err)
		return found.Messages == want
	})
}

// network stands between client and broker and can break.
type network struct {
	listener net.Listener
	lock     sync.Mutex
	open     []net.Conn
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	made := &network{listener: listener}
	broker, err := url.Parse(address())
	must(t, err)
	go func() {
		for {
			inner, err := listener.Accept()
			if err != nil {
				return
			}
			outer, err := net.Dial("tcp", broker.Host)
			if err != nil {
				inner.Close()
				continue
			}
			made.lock.Lock()
			made.open = append(made.open, inner, outer)
			made.lock.Unlock()
			for _, pair := range [][2]net.Conn{{inner, outer}, {outer, inner}} {
				go func(from, to net.Conn) {
					io.Copy(to, from)
					to.Close()
				}(pair[0], pair[1])
			}
		}
	}()
	t.Cleanup(func() { listener.Close(); made.cut() })
	return made
}

func (n *network) url(t *testing.T) string {
	t.Helper()
	found, err := url.Parse(address())
	must(t, err)
	found.Host = n.listener.Addr().String()
	return found.String()
}

func (n *network) cut() {
	n.lock.Lock()
	defer n.lock.Unlock()
	for _, each := range n.open {
		each.Close()
	}
	n.open = nil
}
