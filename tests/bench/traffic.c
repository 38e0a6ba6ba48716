/* See traffic.h. Nothing may get lost, doubled or out of order: a message carries its publisher's number and a sequence
 * number; each queue must give each publisher's messages in unbroken sequence; confirms must match what was sent, one
 * for one; in the end everything was delivered and the queues are empty. */
#include "traffic.h"
#include "measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES 65536 /* what a publisher writes at once, about */
#define STRIDE 7919       /* walks the bindings of a topic exchange in no order; a prime that ends in 9 */
#define TAG_DIGITS 6

/* ---- names ---- */

static char exchange[32], last_name[64];

static const char *queue_name(long number)
{
    snprintf(last_name, sizeof last_name, "loadgen.%d.q%0*ld", (int)getpid(), TAG_DIGITS, number);
    return last_name;
}

/* One binding matches each message of a topic exchange: a third each with a star or a hash at the end, and a star in
 * the middle. Messages have a word of their own there. */
static const char *topic_words(long number, bool pattern, unsigned word)
{
    static const char *patterns[] = {"r%03ld.d%03ld.*", "r%03ld.d%03ld.#", "r%03ld.*.d%03ld"};
    static const char *keys[] = {"r%03ld.d%03ld.u%03u", "r%03ld.d%03ld.u%03u", "r%03ld.u%03u.d%03ld"};
    long high = number / 1000, low = number % 1000;
    if (pattern)
        snprintf(last_name, sizeof last_name, patterns[number % 3], high, low);
    else if (number % 3 == 2)
        snprintf(last_name, sizeof last_name, keys[2], high, word, low);
    else
        snprintf(last_name, sizeof last_name, keys[0], high, low, word);
    return last_name;
}

/* ---- publishers ---- */

struct publisher *all_publishers;
uint64_t limit = UINT64_MAX;

static void count_confirm(struct publisher *p, uint64_t tag, bool multiple)
{
    uint64_t before = p->confirmed;
    if (tag > p->sent || tag < p->unconfirmed_from)
        fail("a confirm for message %llu, which waits for none", (unsigned long long)tag);
    if (multiple) {
        for (uint64_t t = p->unconfirmed_from; t <= tag; t++)
            p->confirmed += !p->seen[t % MAX_WINDOW], p->seen[t % MAX_WINDOW] = 0;
        p->unconfirmed_from = tag + 1;
    } else {
        if (p->seen[tag % MAX_WINDOW])
            fail("message %llu was confirmed twice", (unsigned long long)tag);
        p->confirmed++;
        p->seen[tag % MAX_WINDOW] = 1;
    }
    for (; p->seen[p->unconfirmed_from % MAX_WINDOW]; p->unconfirmed_from++)
        p->seen[p->unconfirmed_from % MAX_WINDOW] = 0;
    total_confirmed += p->confirmed - before;
}

static void publisher_frame(struct connection *c, int type, const uint8_t *payload, size_t length)
{
    (void)length;
    if (type != FRAME_METHOD || get32(payload) != BASIC_ACK)
        fail("a message was refused or returned");
    count_confirm(c->owner, get64(payload + 4), payload[12] & 1);
}

static size_t encode_message(struct buffer *b, struct publisher *p, const char *key)
{
    long done = 0, chunk = p->connection.frame_max - FRAME_EXTRA;
    size_t from = b->length, frame = begin_method(b, 1, BASIC_PUBLISH);
    put16(b, 0), put_short(b, exchange);
    p->key_size = strlen(key), p->key_at = b->length + 1 - from;
    put_short(b, key), put8(b, 0);
    end_frame(b, frame);
    frame = begin_frame(b, FRAME_HEADER, 1);
    put16(b, 60), put16(b, 0), put64(b, (uint64_t)size);
    put16(b, 0x1000), put8(b, durable ? 2 : 1); /* the one property: delivery-mode */
    end_frame(b, frame);
    p->number_at = b->length + 7 - from;
    while (done < size) {
        long part = size - done < chunk ? size - done : chunk;
        frame = begin_frame(b, FRAME_BODY, 1);
        for (long i = 0; i < part; i++)
            put8(b, 'x');
        end_frame(b, frame);
        done += part;
    }
    return b->length - from;
}

void publisher_open(struct publisher *p, uint32_t number)
{
    struct buffer block = {0};
    p->number = number, p->unconfirmed_from = 1;
    connection_open(&p->connection, publisher_frame, p);
    connection_room(&p->connection, 65536);
    if (confirm) {
        size_t frame = begin_method(&p->connection.stream.out, 1, CONFIRM_SELECT);
        put8(&p->connection.stream.out, 0);
        end_frame(&p->connection.stream.out, frame);
        connection_await(&p->connection, CONFIRM_SELECT_OK, 1);
    }
    const char *key = bindings ? topic_words(0, false, 0) : queue_name(number % queues);
    p->message_bytes = encode_message(&block, p, key);
    p->batch = p->message_bytes > BLOCK_BYTES ? 1 : BLOCK_BYTES / p->message_bytes;
    for (size_t i = 1; i < p->batch; i++)
        encode_message(&block, p, key);
    p->block = block.data;
}

/* Give the message at `at` its numbers, and its routing key where these differ. */
static void stamp(struct publisher *p, uint8_t *at)
{
    set32(at + p->number_at, p->number);
    set64(at + p->number_at + 4, p->sent);
    if (bindings) {
        long binding = (long)(p->sent * STRIDE % (uint64_t)bindings);
        memcpy(at + p->key_at, topic_words(binding, false, (unsigned)(p->sent % 1000)), p->key_size);
    } else if (queues > publishers && !fanout) {
        long queue = (long)(p->sent % (uint64_t)queues);
        for (size_t digit = p->key_at + p->key_size; digit > p->key_at + p->key_size - TAG_DIGITS; queue /= 10)
            at[--digit] = (uint8_t)('0' + queue % 10);
    }
    p->sent++;
}

static uint64_t credit(const struct publisher *p)
{
    uint64_t left = limit > p->sent ? limit - p->sent : 0, waiting = p->sent * copies - p->delivered;
    uint64_t unconfirmed = p->sent - p->confirmed;
    uint64_t room = (uint64_t)window;
    if (confirm)
        room = unconfirmed < room ? room - unconfirmed : 0;
    if (ahead && copies) {
        uint64_t most = (uint64_t)ahead * copies;
        uint64_t few = waiting < most ? (most - waiting) / copies : 0;
        room = few < room ? few : room;
    }
    return left < room ? left : room;
}

bool pump(struct publisher *p)
{
    if (p->block_sent == p->block_size) {
        uint64_t count = credit(p);
        if (!count || (count < (uint64_t)window / 10 && count < limit - p->sent))
            return false;
        if (count > p->batch)
            count = p->batch;
        for (uint64_t i = 0; i < count; i++)
            stamp(p, p->block + i * p->message_bytes);
        p->block_size = count * p->message_bytes, p->block_sent = 0;
        total_sent += count;
    }
    p->block_sent += stream_write(&p->connection.stream, p->block + p->block_sent, p->block_size - p->block_sent);
    return !p->connection.stream.blocked;
}

/* ---- consumers ---- */

struct consumer *all_consumers;
/*by queue and publisher: the sequence number that comes next, plus 1; 0 before the first */
static uint64_t *due;
static uint64_t step = 1;    /* between the sequence numbers of one publisher in one queue */
bool draining;

static void send_ack(struct consumer *consumer, bool multiple)
{
    struct buffer *out = &consumer->connection.stream.out;
    size_t frame = begin_method(out, 1, BASIC_ACK);
    put64(out, consumer->last_tag), put8(out, multiple);
    end_frame(out, frame);
    consumer->unacked = 0;
}

static void check_order(struct consumer *consumer, const uint8_t *body)
{
    uint32_t publisher = get32(body);
    uint64_t number = get64(body + 4);
    if (publisher >= (uint32_t)publishers)
        fail("a message of a publisher that is not ours: %u", publisher);
    uint64_t *next = &due[consumer->queue * publishers + publisher];
    if (*next ? number + 1 != *next : number >= step)
        fail("queue %ld gave message %llu of publisher %u where %llu was due", consumer->queue,
             (unsigned long long)number, publisher, (unsigned long long)*next - 1);
    *next = number + step + 1;
    all_publishers[publisher].delivered++;
}

static void consumer_frame(struct connection *c, int type, const uint8_t *payload, size_t length)
{
    struct consumer *consumer = c->owner;
    if (type != consumer->due)
        fail("a frame of type %d where one of type %d was due", type, consumer->due);
    if (type == FRAME_METHOD) {
        const uint8_t *tag = payload + 4, *after = tag + 1 + tag[0];
        if (get32(payload) != BASIC_DELIVER || tag[0] != TAG_DIGITS)
            fail("another method than a delivery, or a consumer tag that is not ours");
        consumer->queue = 0;
        for (int i = 1; i <= TAG_DIGITS; i++)
            consumer->queue = consumer->queue * 10 + tag[i] - '0';
        if (consumer->queue >= queues || get64(after) != consumer->last_tag + 1 || after[8])
            fail("a delivery with a wrong tag, or a redelivery");
        consumer->last_tag++;
        consumer->due = FRAME_HEADER;
        return;
    }
    if (type == FRAME_HEADER) {
        consumer->missing = get64(payload + 4), consumer->fresh = true, consumer->due = FRAME_BODY;
        if (consumer->missing != (uint64_t)size)
            fail("a message of %llu bytes", (unsigned long long)consumer->missing);
        return;
    }
    if (length > consumer->missing || (consumer->fresh && length < 12))
        fail("body frames that do not fit the message");
    if (consumer->fresh)
        check_order(consumer, payload);
    consumer->fresh = false;
    consumer->missing -= length;
    if (consumer->missing)
        return;
    consumer->due = FRAME_METHOD;
    total_delivered++;
    if (ack && ++consumer->unacked >= (uint64_t)ack)
        send_ack(consumer, ack > 1);
}

void consumer_serve(struct consumer *consumer)
{
    connection_read(&consumer->connection);
    if (draining && consumer->unacked)
        send_ack(consumer, true);
    stream_flush(&consumer->connection.stream);
}

void consumer_open(struct consumer *consumer, long number)
{
    struct connection *c = &consumer->connection;
    consumer->due = FRAME_METHOD;
    connection_open(c, consumer_frame, consumer);
    connection_room(c, 262144);
    if (prefetch) {
        size_t frame = begin_method(&c->stream.out, 1, BASIC_QOS);
        put32(&c->stream.out, 0), put16(&c->stream.out, (unsigned)prefetch), put8(&c->stream.out, 1); /* all consumers of the channel */
        end_frame(&c->stream.out, frame);
        connection_await(c, BASIC_QOS_OK, 1);
    }
    uint32_t open = 0;
    for (long queue = number; queue < queues; queue += consumers) {
        char tag[32];
        snprintf(tag, sizeof tag, "%0*ld", TAG_DIGITS, queue);
        size_t frame = begin_method(&c->stream.out, 1, BASIC_CONSUME);
        put16(&c->stream.out, 0), put_short(&c->stream.out, queue_name(queue)), put_short(&c->stream.out, tag);
        put8(&c->stream.out, ack ? 0 : 2), put32(&c->stream.out, 0);
        end_frame(&c->stream.out, frame);
        if (++open == 100 || queue + consumers >= queues)
            connection_await(c, BASIC_CONSUME_OK, open), open = 0;
    }
}

/* ---- the topology ---- */

static struct connection control;

static void declare_exchange(const char *kind)
{
    struct buffer *out = &control.stream.out;
    snprintf(exchange, sizeof exchange, "loadgen.%d", (int)getpid());
    size_t frame = begin_method(out, 1, EXCHANGE_DECLARE);
    put16(out, 0), put_short(out, exchange), put_short(out, kind), put8(out, durable ? 2 : 0), put32(out, 0);
    end_frame(out, frame);
    connection_await(&control, EXCHANGE_DECLARE_OK, 1);
}

static void bind_queue(long queue, const char *key)
{
    char name[sizeof last_name], binding[sizeof last_name];
    snprintf(binding, sizeof binding, "%s", key);
    snprintf(name, sizeof name, "%s", queue_name(queue));
    struct buffer *out = &control.stream.out;
    size_t frame = begin_method(out, 1, QUEUE_BIND);
    put16(out, 0), put_short(out, name), put_short(out, exchange), put_short(out, binding), put8(out, 0), put32(out, 0);
    end_frame(out, frame);
}

void declare_topology(void)
{
    struct buffer *out = &control.stream.out;
    uint32_t open = 0;
    copies = !consumers ? 0 : fanout ? (uint64_t)queues : 1;
    step = fanout ? 1 : bindings || queues > publishers ? (uint64_t)queues : 1;
    due = calloc((size_t)(queues * publishers), sizeof *due);
    connection_open(&control, NULL, NULL);
    if (fanout || bindings)
        declare_exchange(fanout ? "fanout" : "topic");
    phase_begin(0, 0);
    for (long queue = 0; queue < queues; queue++) {
        size_t frame = begin_method(out, 1, QUEUE_DECLARE);
        put16(out, 0), put_short(out, queue_name(queue)), put8(out, durable ? 2 : 0), put32(out, 0);
        end_frame(out, frame);
        if (++open == 100 || queue + 1 == queues)
            connection_await(&control, QUEUE_DECLARE_OK, open), open = 0;
    }
    phase_end("declare", (uint64_t)queues, 0);
    phase_begin(0, 0);
    for (long number = 0; number < (fanout ? queues : bindings); number++) {
        bind_queue(number % queues, fanout ? "" : topic_words(number, true, 0));
        if (++open == 100 || number + 1 == (fanout ? queues : bindings))
            connection_await(&control, QUEUE_BIND_OK, open), open = 0;
    }
    if (bindings)
        phase_end("bind", (uint64_t)bindings, 0);
}

void delete_topology(void)
{
    struct buffer *out = &control.stream.out;
    uint32_t open = 0;
    control.answer_count = 0;
    for (long queue = 0; queue < queues; queue++) {
        size_t frame = begin_method(out, 1, QUEUE_DELETE);
        put16(out, 0), put_short(out, queue_name(queue)), put8(out, 0);
        end_frame(out, frame);
        if (++open == 100 || queue + 1 == queues)
            connection_await(&control, QUEUE_DELETE_OK, open), open = 0;
    }
    if (control.answer_count && copies)
        fail("%u messages were left in the queues", control.answer_count);
    if (*exchange) {
        size_t frame = begin_method(out, 1, EXCHANGE_DELETE);
        put16(out, 0), put_short(out, exchange), put8(out, 0);
        end_frame(out, frame);
        connection_await(&control, EXCHANGE_DELETE_OK, 1);
    }
}
