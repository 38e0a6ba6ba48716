/* See wire.h. */
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WANTED_FRAME_MAX 131072
#define ANSWER_SECONDS 300 /* some brokers take minutes to forget 100,000 bindings */
#define FIRST_ROOM 2048

static struct sockaddr_storage target;
static socklen_t target_size;

void fail(const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *p = text; *p; p++)
        if (*p == '"' || *p == '\\' || (unsigned char)*p < ' ')
            *p = '\'';
    printf("\n{\"error\": \"%s\"}\n", text);
    exit(1);
}

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- bytes ---- */

void buffer_room(struct buffer *b, size_t room)
{
    if (room <= b->room)
        return;
    while (b->room < room)
        b->room = b->room ? b->room * 2 : FIRST_ROOM;
    b->data = realloc(b->data, b->room);
    if (!b->data)
        fail("out of memory");
}

void put(struct buffer *b, const void *data, size_t size)
{
    buffer_room(b, b->length + size);
    memcpy(b->data + b->length, data, size);
    b->length += size;
}

void put8(struct buffer *b, unsigned value) { put(b, &(uint8_t){(uint8_t)value}, 1); }

void put16(struct buffer *b, unsigned value) { put8(b, value >> 8), put8(b, value); }

void put32(struct buffer *b, uint32_t value) { put16(b, value >> 16), put16(b, value & 0xFFFF); }

void put64(struct buffer *b, uint64_t value) { put32(b, value >> 32), put32(b, (uint32_t)value); }

void put_short(struct buffer *b, const char *text)
{
    put8(b, (unsigned)strlen(text));
    put(b, text, strlen(text));
}

static void put_long(struct buffer *b, const void *data, size_t size)
{
    put32(b, (uint32_t)size);
    put(b, data, size);
}

size_t begin_frame(struct buffer *b, int type, int channel)
{
    put8(b, (unsigned)type), put16(b, (unsigned)channel), put32(b, 0);
    return b->length;
}

size_t begin_method(struct buffer *b, int channel, uint32_t method)
{
    size_t begun = begin_frame(b, FRAME_METHOD, channel);
    put32(b, method);
    return begun;
}

void end_frame(struct buffer *b, size_t begun)
{
    set32(b->data + begun - 4, (uint32_t)(b->length - begun));
    put8(b, FRAME_END);
}

/* ---- sockets ---- */

void wire_target(const char *host, int port)
{
    char service[16];
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM};
    snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(host, service, &hints, &found))
        fail("no such host: %s", host);
    memcpy(&target, found->ai_addr, found->ai_addrlen);
    target_size = found->ai_addrlen;
    freeaddrinfo(found);
}

int wire_connect(void)
{
    int fd = socket(target.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&target, target_size))
        fail("cannot connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    return fd;
}

void stream_unblock(struct stream *s) { fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) | O_NONBLOCK); }

bool stream_read(struct stream *s, size_t room, bool due)
{
    struct buffer *in = &s->in;
    buffer_room(in, in->length + room);
    ssize_t got = recv(s->fd, in->data + in->length, in->room - in->length, 0);
    if ((got < 0 && (errno == EAGAIN || errno == EINTR)) || (got <= 0 && due))
        return false;
    if (got <= 0)
        fail("the broker dropped a connection: %s", got ? strerror(errno) : "end of stream");
    in->length += (size_t)got;
    return true;
}

void stream_taken(struct stream *s, size_t at)
{
    memmove(s->in.data, s->in.data + at, s->in.length - at);
    s->in.length -= at;
}

size_t stream_write(struct stream *s, const uint8_t *data, size_t size)
{
    ssize_t wrote = send(s->fd, data, size, MSG_NOSIGNAL);
    if (wrote < 0 && errno != EAGAIN)
        fail("writing to the broker: %s", strerror(errno));
    s->blocked = wrote < (ssize_t)size;
    return wrote < 0 ? 0 : (size_t)wrote;
}

void stream_flush(struct stream *s)
{
    s->blocked = false;
    while (s->out_sent < s->out.length && !s->blocked)
        s->out_sent += stream_write(s, s->out.data + s->out_sent, s->out.length - s->out_sent);
    if (!s->blocked)
        s->out.length = s->out_sent = 0;
}

void stream_close(struct stream *s)
{
    close(s->fd);
    free(s->in.data);
    free(s->out.data);
    s->in = s->out = (struct buffer){0};
}

/* ---- the handshake ---- */

static void send_start_ok(struct connection *c)
{
    static const char response[] = "\0guest\0guest";
    struct buffer capabilities = {0}, properties = {0};
    const char *wanted[] = {"publisher_confirms", "basic.nack", "authentication_failure_close"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        put_short(&capabilities, wanted[i]), put(&capabilities, "t\1", 2);
    put_short(&properties, "product"), put8(&properties, 'S'), put_long(&properties, "loadgen", 7);
    put_short(&properties, "capabilities"), put8(&properties, 'F');
    put_long(&properties, capabilities.data, capabilities.length);
    size_t begun = begin_method(&c->stream.out, 0, CONNECTION_START_OK);
    put_long(&c->stream.out, properties.data, properties.length);
    put_short(&c->stream.out, "PLAIN");
    put_long(&c->stream.out, response, sizeof response - 1);
    put_short(&c->stream.out, "en_US");
    end_frame(&c->stream.out, begun);
    free(capabilities.data);
    free(properties.data);
}

static void send_tune_ok(struct connection *c, const uint8_t *arguments)
{
    uint32_t offered = get32(arguments + 2);
    c->frame_max = offered && offered < WANTED_FRAME_MAX ? offered : WANTED_FRAME_MAX;
    size_t begun = begin_method(&c->stream.out, 0, CONNECTION_TUNE_OK);
    put16(&c->stream.out, get16(arguments)), put32(&c->stream.out, c->frame_max), put16(&c->stream.out, 0);
    end_frame(&c->stream.out, begun);
    begun = begin_method(&c->stream.out, 0, CONNECTION_OPEN);
    put_short(&c->stream.out, "/"), put_short(&c->stream.out, ""), put8(&c->stream.out, 0);
    end_frame(&c->stream.out, begun);
}

static void send_channel_open(struct connection *c)
{
    size_t begun = begin_method(&c->stream.out, 1, CHANNEL_OPEN);
    put_short(&c->stream.out, "");
    end_frame(&c->stream.out, begun);
}

static void answered(struct connection *c, uint32_t method, const uint8_t *arguments)
{
    c->answer = method;
    c->answers++;
    switch (method) {
    case CONNECTION_START: send_start_ok(c); break;
    case CONNECTION_TUNE: send_tune_ok(c, arguments); break;
    case CONNECTION_OPEN_OK: send_channel_open(c); break;
    case CHANNEL_OPEN_OK: c->ready = true; break;
    case CONNECTION_CLOSE_OK: c->closed = true; break;
    case QUEUE_DELETE_OK: c->answer_count += get32(arguments); break;
    case CONNECTION_CLOSE:
    case CHANNEL_CLOSE:
        fail("the broker closed the %s: %d %.*s", method == CONNECTION_CLOSE ? "connection" : "channel",
             get16(arguments), arguments[2], (const char *)arguments + 3);
    }
    stream_flush(&c->stream);
}

/* ---- connections ---- */

void connection_start(struct connection *c, frame_handler *handler, void *owner)
{
    *c = (struct connection){.handler = handler, .owner = owner, .frame_max = 4096, .stream.fd = wire_connect()};
    stream_unblock(&c->stream);
    put(&c->stream.out, "AMQP\0\0\x09\x01", 8);
    stream_flush(&c->stream);
}

void connection_open(struct connection *c, frame_handler *handler, void *owner)
{
    connection_start(c, handler, owner);
    connection_await(c, 0, 4); /* start, tune, open-ok, channel.open-ok */
    if (!c->ready)
        fail("the handshake went astray at method %08x", c->answer);
}

void connection_room(struct connection *c, size_t room) { buffer_room(&c->stream.in, room); }

static void hand_out(struct connection *c, int type, const uint8_t *payload, size_t size)
{
    uint32_t method = type == FRAME_METHOD ? get32(payload) : 0;
    bool traffic = type == FRAME_METHOD ? method == BASIC_DELIVER || method == BASIC_ACK || method == BASIC_NACK ||
                                              method == BASIC_RETURN
                                        : type == FRAME_HEADER || type == FRAME_BODY;
    if (!traffic) {
        if (type == FRAME_METHOD)
            answered(c, method, payload + 4);
    } else if (c->handler) {
        c->handler(c, type, payload, size);
    } else {
        fail("traffic on a connection that has none: method %08x", method);
    }
}

bool connection_read(struct connection *c)
{
    struct buffer *in = &c->stream.in;
    if (!stream_read(&c->stream, FIRST_ROOM / 2, c->closed))
        return false;
    size_t at = 0;
    while (in->length - at >= FRAME_EXTRA) {
        const uint8_t *frame = in->data + at;
        size_t size = get32(frame + 3);
        if (frame[0] == 'A')
            fail("the broker does not speak AMQP 0-9-1");
        if (size + FRAME_EXTRA > c->frame_max && c->ready)
            fail("a frame larger than agreed: %zu", size);
        if (in->length - at < size + FRAME_EXTRA)
            break;
        if (frame[size + 7] != FRAME_END)
            fail("a frame without its end");
        hand_out(c, frame[0], frame + 7, size);
        at += size + FRAME_EXTRA;
    }
    stream_taken(&c->stream, at);
    if (in->room - in->length < FIRST_ROOM / 2)
        buffer_room(in, in->room * 2);
    return true;
}

void connection_await(struct connection *c, uint32_t method, uint32_t count)
{
    double end = now() + ANSWER_SECONDS;
    uint32_t last = c->answers + count;
    stream_flush(&c->stream);
    while ((int32_t)(last - c->answers) > 0) {
        struct pollfd ready = {.fd = c->stream.fd, .events = (short)(POLLIN | (c->stream.blocked ? POLLOUT : 0))};
        poll(&ready, 1, 1000);
        if (ready.revents & POLLOUT)
            stream_flush(&c->stream);
        if (ready.revents & ~POLLOUT)
            connection_read(c);
        if (now() > end)
            fail("no answer in %d seconds, waiting for method %08x", ANSWER_SECONDS, method);
    }
    if (method && c->answer != method)
        fail("method %08x came where %08x was due", c->answer, method);
}

void connection_ask_close(struct connection *c)
{
    size_t begun = begin_method(&c->stream.out, 0, CONNECTION_CLOSE);
    put16(&c->stream.out, 200), put_short(&c->stream.out, ""), put32(&c->stream.out, 0);
    end_frame(&c->stream.out, begun);
    stream_flush(&c->stream);
}

void connection_drop(struct connection *c)
{
    /* A reset instead of TIME_WAIT: churn would run out of ports. */
    setsockopt(c->stream.fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    stream_close(&c->stream);
}
