/* See mqtt.h. */
#include "mqtt.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_ROOM 1024
#define ANSWER_SECONDS 60

static void put_text(struct buffer *b, const char *text)
{
    put16(b, (unsigned)strlen(text));
    put(b, text, strlen(text));
}

static void put_length(struct buffer *b, size_t length)
{
    for (; length > 127; length >>= 7)
        put8(b, (unsigned)(length & 127) | 128);
    put8(b, (unsigned)length);
}

/* The length behind a first byte. Gives how many bytes it has; 0: not all are there. */
static size_t get_length(const uint8_t *p, size_t left, size_t *length)
{
    *length = 0;
    for (size_t i = 0; i < left && i < 4; i++) {
        *length |= (size_t)(p[i] & 127) << 7 * i;
        if (p[i] < 128)
            return i + 1;
    }
    return 0;
}

void put_answer(struct client *c, unsigned first, unsigned id)
{
    put(&c->stream.out, (uint8_t[]){(uint8_t)first, 2, (uint8_t)(id >> 8), (uint8_t)id}, 4);
}

size_t put_publish(struct buffer *b, unsigned flags, const char *topic, size_t size)
{
    put8(b, PUBLISH | flags);
    put_length(b, 2 + strlen(topic) + (flags & 6 ? 2 : 0) + size);
    put_text(b, topic);
    if (flags & 6)
        put16(b, 0);
    buffer_room(b, b->length + size);
    memset(b->data + b->length, 0, size);
    b->length += size;
    return b->length - size;
}

const uint8_t *read_publish(unsigned first, const uint8_t *rest, size_t size, unsigned *id, size_t *length)
{
    size_t at = size < 2 ? size + 1 : 2 + (size_t)get16(rest);
    *id = 0;
    if (first & 6 && at + 2 <= size)
        *id = get16(rest + at), at += 2;
    if (at > size || (first & 6 && !*id))
        fail("a PUBLISH that is cut off, or without its packet id");
    *length = size - at;
    return rest + at;
}

void client_open(struct client *c, const char *id, bool clean, packet_handler *handler, void *owner)
{
    struct buffer hello = {0};
    *c = (struct client){.handler = handler, .owner = owner, .stream.fd = wire_connect()};
    put8(&hello, 0x10);
    put_length(&hello, 10 + 2 + strlen(id) + 14);
    put_text(&hello, "MQTT"), put8(&hello, 4), put8(&hello, clean ? 0xC2 : 0xC0), put16(&hello, 0);
    put_text(&hello, id), put_text(&hello, "guest"), put_text(&hello, "guest");
    if (send(c->stream.fd, hello.data, hello.length, MSG_NOSIGNAL) != (ssize_t)hello.length)
        fail("writing to the broker: %s", strerror(errno));
    free(hello.data);
    uint8_t answer[4];
    if (recv(c->stream.fd, answer, sizeof answer, MSG_WAITALL) != sizeof answer || answer[0] != CONNACK || answer[3])
        fail("the broker does not let us in");
    stream_unblock(&c->stream);
}

static void hand_out(struct client *c, const uint8_t *packet, size_t head, size_t size)
{
    const uint8_t *rest = packet + head;
    if (packet[0] == SUBACK) {
        if (size < 3 || rest[2] > 2)
            fail("a subscription was refused");
        c->answers++;
    } else {
        c->handler(c, packet[0], rest, size);
    }
}

void client_read(struct client *c)
{
    struct buffer *in = &c->stream.in;
    if (!stream_read(&c->stream, FIRST_ROOM, false))
        return;
    bool full = in->length == in->room;
    size_t at = 0, size, head;
    while (in->length - at >= 2 && (head = get_length(in->data + at + 1, in->length - at - 1, &size))) {
        head++;
        if (in->length - at < head + size)
            break;
        hand_out(c, in->data + at, head, size);
        at += head + size;
    }
    stream_taken(&c->stream, at);
    if (full && in->room < 262144)
        buffer_room(in, in->room * 2);
}

void client_subscribe(struct client *c, const char *filter, unsigned granted)
{
    double end = now() + ANSWER_SECONDS;
    uint32_t before = c->answers;
    put8(&c->stream.out, SUBSCRIBE), put_length(&c->stream.out, 5 + strlen(filter)), put16(&c->stream.out, 1);
    put_text(&c->stream.out, filter), put8(&c->stream.out, granted);
    stream_flush(&c->stream);
    while (c->answers == before) {
        poll(&(struct pollfd){.fd = c->stream.fd, .events = POLLIN}, 1, 1000);
        client_read(c);
        if (now() > end)
            fail("no SUBACK in %d seconds", ANSWER_SECONDS);
    }
}

void client_close(struct client *c)
{
    put(&c->stream.out, "\xE0\0", 2);
    stream_flush(&c->stream);
    stream_close(&c->stream);
}
