/* A load generator for MQTT brokers: one thread, raw sockets, packets built beforehand. bench.py runs it and says what
 * its rows mean. What it prints is as of loadgen.c.
 *
 *     mqttgen MODE key=value ...      the keys are in measure.h
 *
 *     flow      publish to subscribers for `seconds`, after `warmup`, with QoS `qos` in and out: each publisher to a
 *               topic of its own that the subscribers share among them, or with `fanout` all to one; phase flow
 *     retained  retain `messages` messages on as many topics, subscribe to all of them, and remove them, with QoS 1;
 *               phases set, read, remove
 *     idle      open `connections` with a subscription each, and let them be for `seconds`; phases open, idle
 *
 * Nothing may get lost, doubled or out of order; each message must be acknowledged once, in the order of sending. */
#include "load.h"
#include "measure.h"
#include "mqtt.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BLOCK_BYTES 65536

struct publisher {
    struct client client;
    uint32_t number;
    uint64_t sent, received, acknowledged, delivered; /* received: PUBRECs of QoS 2 */
    uint8_t *block;                                   /* `batch` packets, ready but for their numbers */
    size_t packet_bytes, batch, payload_at;
    size_t block_size, block_sent;
};

struct subscriber {
    struct client client;
    uint64_t *due; /* by publisher: the sequence number that comes next */
    uint64_t open; /* deliveries of QoS 2 that are not over */
};

static struct publisher *all_publishers;
static struct subscriber *all_subscribers;
static bool draining; /* publish no more */

static char *text(const char *format, long number)
{
    static char made[64];
    int length = snprintf(made, sizeof made, "bench/%d/", (int)getpid());
    snprintf(made + length, sizeof made - (size_t)length, format, number);
    return made;
}

/* ---- publishers ---- */

static unsigned id_of(uint64_t number) { return (unsigned)(number % 65535 + 1); }

static void publisher_packet(struct client *c, unsigned first, const uint8_t *rest, size_t rest_size)
{
    struct publisher *p = c->owner;
    if (rest_size != 2 || (qos == 1 ? first != PUBACK : first != PUBREC && first != PUBCOMP))
        fail("packet %02x came to a publisher", first);
    uint64_t *count = first == PUBREC ? &p->received : &p->acknowledged;
    if (get16(rest) != id_of(*count) || *count >= p->sent)
        fail("packet %02x for %u where %u was due", first, get16(rest), id_of(*count));
    ++*count;
    if (first == PUBREC)
        put_answer(c, PUBREL, get16(rest));
    else
        total_confirmed++;
}

static void publisher_open(struct publisher *p, long number)
{
    char topic[64];
    struct buffer block = {0};
    snprintf(topic, sizeof topic, "%s", text("t/%ld", fanout ? 0 : number));
    p->number = (uint32_t)number;
    client_open(&p->client, text("p%ld", number), true, publisher_packet, p);
    buffer_room(&p->client.stream.in, 65536);
    p->payload_at = put_publish(&block, (unsigned)qos << 1, topic, (size_t)size);
    p->packet_bytes = block.length;
    p->batch = p->packet_bytes > BLOCK_BYTES ? 1 : BLOCK_BYTES / p->packet_bytes;
    for (size_t i = 1; i < p->batch; i++)
        put_publish(&block, (unsigned)qos << 1, topic, (size_t)size);
    p->block = block.data;
}

static uint64_t credit(struct publisher *p)
{
    uint64_t waiting = qos ? p->sent - p->acknowledged : 0, undelivered = p->sent - p->delivered / copies;
    if (draining || waiting >= (uint64_t)window || undelivered >= (uint64_t)ahead)
        return 0;
    uint64_t free = (uint64_t)ahead - undelivered;
    return qos && free > (uint64_t)window - waiting ? (uint64_t)window - waiting : free;
}

/* Write one block of messages, if a tenth of the window is free. Returns whether there may be more to write. */
static bool pump(struct publisher *p)
{
    if (p->block_sent == p->block_size) {
        stream_flush(&p->client.stream); /* PUBRELs */
        uint64_t count = credit(p), few = (uint64_t)(window < ahead ? window : ahead) / 10;
        if (p->client.stream.blocked || !count || count < few)
            return false;
        if (count > p->batch)
            count = p->batch;
        for (uint64_t i = 0; i < count; i++) {
            uint8_t *payload = p->block + i * p->packet_bytes + p->payload_at;
            if (qos)
                payload[-2] = (uint8_t)(id_of(p->sent) >> 8), payload[-1] = (uint8_t)id_of(p->sent);
            set32(payload, p->number);
            set64(payload + 4, p->sent++);
        }
        p->block_size = count * p->packet_bytes, p->block_sent = 0;
        total_sent += count;
    }
    p->block_sent += stream_write(&p->client.stream, p->block + p->block_sent, p->block_size - p->block_sent);
    return !p->client.stream.blocked;
}

/* ---- subscribers ---- */

static void take(struct subscriber *s, const uint8_t *payload, size_t length)
{
    uint32_t publisher = length == (size_t)size ? get32(payload) : UINT32_MAX;
    if (publisher >= (uint32_t)publishers)
        fail("a message that is none of ours, of %zu bytes", length);
    uint64_t number = get64(payload + 4);
    if (number != s->due[publisher])
        fail("message %llu of publisher %u where %llu was due", (unsigned long long)number, publisher,
             (unsigned long long)s->due[publisher]);
    s->due[publisher]++;
    all_publishers[publisher].delivered++;
    total_delivered++;
}

static void subscriber_packet(struct client *c, unsigned first, const uint8_t *rest, size_t rest_size)
{
    struct subscriber *s = c->owner;
    if (first == PUBREL && s->open) {
        s->open--;
        put_answer(c, PUBCOMP, get16(rest));
        return;
    }
    if (first != (PUBLISH | (unsigned)qos << 1))
        fail("packet %02x came to a subscriber", first);
    unsigned id;
    size_t length;
    const uint8_t *payload = read_publish(first, rest, rest_size, &id, &length);
    take(s, payload, length);
    if (qos == 1)
        put_answer(c, PUBACK, id);
    if (qos == 2)
        put_answer(c, PUBREC, id), s->open++;
}

static void subscriber_open(struct subscriber *s, long number)
{
    s->due = calloc((size_t)publishers, sizeof *s->due);
    client_open(&s->client, text("s%ld", number), !persistent, subscriber_packet, s);
    for (long topic = number; topic < (fanout ? number + 1 : publishers); topic += consumers)
        client_subscribe(&s->client, text("t/%ld", fanout ? 0 : topic), (unsigned)qos);
}

/* ---- the flow ---- */

static void turn(void)
{
    struct epoll_event events[MAX_EVENTS];
    bool more = false;
    for (long i = 0; i < publishers; i++) {
        if (!all_publishers[i].client.stream.blocked)
            more |= pump(&all_publishers[i]);
        watch(&all_publishers[i].client.stream, (uint64_t)i, true);
    }
    int count = load_wait(events, more ? 0 : 10);
    for (int i = 0; i < count; i++) {
        long number = (long)events[i].data.u64;
        struct client *c = number < publishers ? &all_publishers[number].client
                                               : &all_subscribers[number - publishers].client;
        if (events[i].events & EPOLLOUT)
            c->stream.blocked = false;
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            client_read(c);
        if (number >= publishers) {
            stream_flush(&c->stream);
            watch(&c->stream, (uint64_t)number, true);
        }
    }
}

static bool all_done(void)
{
    for (long i = 0; i < consumers; i++)
        if (all_subscribers[i].open)
            return false;
    return total_delivered == total_sent * copies && (!qos || total_confirmed == total_sent);
}

static void ignore(struct client *c, unsigned first, const uint8_t *rest, size_t rest_size)
{
    (void)c, (void)first, (void)rest, (void)rest_size;
}

static void flow(void)
{
    copies = fanout ? (uint64_t)consumers : 1;
    all_publishers = calloc((size_t)publishers, sizeof *all_publishers);
    all_subscribers = calloc((size_t)consumers, sizeof *all_subscribers);
    for (long i = 0; i < consumers; i++) {
        subscriber_open(&all_subscribers[i], i);
        watch(&all_subscribers[i].client.stream, (uint64_t)(publishers + i), false);
    }
    for (long i = 0; i < publishers; i++) {
        publisher_open(&all_publishers[i], i);
        watch(&all_publishers[i].client.stream, (uint64_t)i, false);
    }
    run(turn, never, now() + warmup);
    phase_begin(total_sent, total_delivered);
    run(turn, never, now() + seconds);
    phase_end("flow", total_sent, total_delivered);
    draining = true;
    run(turn, all_done, 1e300);
    for (long i = 0; i < publishers; i++)
        client_close(&all_publishers[i].client);
    for (long i = 0; i < consumers; i++) {
        client_close(&all_subscribers[i].client);
        if (persistent) {
            struct client last;
            client_open(&last, text("s%ld", i), true, ignore, NULL);
            client_close(&last);
        }
    }
}

/* ---- retained messages ---- */

static uint64_t retained_acknowledged, retained_read;

static void setter_packet(struct client *c, unsigned first, const uint8_t *rest, size_t rest_size)
{
    (void)c, (void)rest;
    if (first != PUBACK || rest_size != 2)
        fail("packet %02x came to a publisher", first);
    retained_acknowledged++;
}

static void reader_packet(struct client *c, unsigned first, const uint8_t *rest, size_t rest_size)
{
    unsigned id;
    size_t length;
    if (first != (PUBLISH | 2 | RETAIN))
        fail("packet %02x came to a subscriber", first);
    read_publish(first, rest, rest_size, &id, &length);
    if (length != (size_t)size)
        fail("a retained message of %zu bytes", length);
    put_answer(c, PUBACK, id);
    retained_read++;
}

/* Go on with one connection until it has got somewhere. */
static void serve_until(struct client *c, uint64_t *count, uint64_t wanted)
{
    double moved = now();
    while (*count < wanted) {
        uint64_t before = *count;
        struct epoll_event events[MAX_EVENTS];
        watch(&c->stream, 0, true);
        if (load_wait(events, 1000) > 0 && events[0].events & ~(uint32_t)EPOLLOUT)
            client_read(c);
        stream_flush(&c->stream);
        if (*count != before)
            moved = now();
        if (now() > moved + STALL_SECONDS)
            fail("%llu of %llu retained messages in the end", (unsigned long long)*count, (unsigned long long)wanted);
    }
}

/* Publish to all the topics, a window at a time. */
static void retain_all(struct client *c, const char *phase, size_t bytes)
{
    phase_begin(0, 0);
    retained_acknowledged = 0;
    for (uint64_t i = 0; i < (uint64_t)messages; i++) {
        char topic[96];
        snprintf(topic, sizeof topic, "%s%lu", text("r/%ld/", (long)(i / 100)), (unsigned long)i);
        size_t at = put_publish(&c->stream.out, 2 | RETAIN, topic, bytes);
        c->stream.out.data[at - 2] = (uint8_t)(id_of(i) >> 8), c->stream.out.data[at - 1] = (uint8_t)id_of(i);
        if (i % 100 == 99)
            stream_flush(&c->stream), serve_until(c, &retained_acknowledged, i < (uint64_t)window ? 0 : i - (uint64_t)window);
    }
    stream_flush(&c->stream);
    serve_until(c, &retained_acknowledged, (uint64_t)messages);
    phase_end(phase, (uint64_t)messages, 0);
}

static void retained(void)
{
    struct client setter, reader;
    client_open(&setter, text("p%ld", 0), true, setter_packet, NULL);
    watch(&setter.stream, 0, false);
    retain_all(&setter, "set", (size_t)size);
    phase_begin(0, 0);
    client_open(&reader, text("s%ld", 0), true, reader_packet, NULL);
    watch(&reader.stream, 0, false);
    client_subscribe(&reader, text("r/#", 0), 1);
    serve_until(&reader, &retained_read, (uint64_t)messages);
    phase_end("read", 0, retained_read);
    if (retained_read != (uint64_t)messages)
        fail("%llu retained messages of %ld", (unsigned long long)retained_read, messages);
    unwatch(&reader.stream);
    client_close(&reader);
    retain_all(&setter, "remove", 0);
    client_close(&setter);
}

/* ---- connections without traffic ---- */

static void idle(void)
{
    struct client *all = calloc((size_t)connections, sizeof *all);
    phase_begin(0, 0);
    for (long i = 0; i < connections; i++) {
        client_open(&all[i], text("i%ld", i), true, ignore, NULL);
        client_subscribe(&all[i], text("t/%ld", i), 1);
        watch(&all[i].stream, (uint64_t)i, false);
    }
    phase_end("open", (uint64_t)connections, 0);
    phase_begin(0, 0);
    for (double end = now() + seconds; now() < end;) {
        struct epoll_event events[MAX_EVENTS];
        if (load_wait(events, 100) > 0)
            fail("the broker has something to say to an idle connection");
    }
    phase_end("idle", 0, 0);
    for (long i = 0; i < connections; i++)
        client_close(&all[i]);
}

int main(int count, char **arguments)
{
    struct mode modes[] = {{"flow", flow}, {"retained", retained}, {"idle", idle}};
    return load_main(count, arguments, modes, sizeof modes / sizeof *modes);
}
