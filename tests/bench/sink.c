/* Not a broker: the least that lets loadgen run at full speed, to know how fast loadgen itself is (bench.py --self).
 * Answers what loadgen asks, confirms everything at once, and hands what is published to the one consumer there is.
 *
 *     sink        prints its port on 127.0.0.1 and runs until it is killed */
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CLIENTS 64
#define ROOM 262144

struct client {
    int fd;
    bool greeted, confirms;
    uint64_t published, confirmed, delivered;
    struct buffer in, out;
    size_t out_sent;
};

static struct client clients[MAX_CLIENTS];
static struct client *consumer;
static char consumer_tag[256];

static void answer(struct client *c, int channel, uint32_t method, const void *arguments, size_t size)
{
    size_t frame = begin_method(&c->out, channel, method);
    put(&c->out, arguments, size);
    end_frame(&c->out, frame);
}

static void deliver(const uint8_t *publish)
{
    struct buffer *out = &consumer->out;
    const uint8_t *exchange = publish + 2, *key = exchange + 1 + exchange[0];
    size_t frame = begin_method(out, 1, BASIC_DELIVER);
    put_short(out, consumer_tag), put64(out, ++consumer->delivered), put8(out, 0);
    put(out, exchange, (size_t)(key + 1 + key[0] - exchange));
    end_frame(out, frame);
}

static void consume(struct client *c, const uint8_t *arguments)
{
    const uint8_t *queue = arguments + 2, *tag = queue + 1 + queue[0];
    memcpy(consumer_tag, tag + 1, tag[0]);
    consumer_tag[tag[0]] = 0;
    consumer = c;
    answer(c, 1, BASIC_CONSUME_OK, tag, tag[0] + 1u);
}

static void serve_method(struct client *c, uint32_t method, const uint8_t *arguments)
{
    static const uint8_t tune[] = {7, 255, 0, 2, 0, 0, 0, 0}, zeros[16];
    switch (method) {
    case BASIC_PUBLISH:
        c->published++;
        if (consumer)
            deliver(arguments);
        break;
    case BASIC_ACK:
    case CONNECTION_TUNE_OK: break;
    case CONNECTION_START_OK: answer(c, 0, CONNECTION_TUNE, tune, sizeof tune); break;
    case CONNECTION_OPEN: answer(c, 0, CONNECTION_OPEN_OK, zeros, 1); break;
    case CONNECTION_CLOSE: answer(c, 0, CONNECTION_CLOSE_OK, NULL, 0); break;
    case CHANNEL_OPEN: answer(c, 1, CHANNEL_OPEN_OK, zeros, 4); break;
    case BASIC_CONSUME: consume(c, arguments); break;
    case QUEUE_DECLARE: answer(c, 1, QUEUE_DECLARE_OK, zeros, 9); break;
    case QUEUE_DELETE: answer(c, 1, QUEUE_DELETE_OK, zeros, 4); break;
    case CONFIRM_SELECT: c->confirms = true; /* fall through */
    default: answer(c, 1, method + 1, NULL, 0); /* the number of an answer is that of its request, plus one */
    }
}

static size_t serve_frame(struct client *c, const uint8_t *frame, size_t left)
{
    if (!c->greeted && left >= 8) {
        static const uint8_t start[] = "\0\x09\0\0\0\0\0\0\0\5PLAIN\0\0\0\5en_US";
        c->greeted = true;
        answer(c, 0, CONNECTION_START, start, sizeof start - 1);
        return 8;
    }
    if (left < FRAME_EXTRA || left < get32(frame + 3) + FRAME_EXTRA)
        return 0;
    size_t size = get32(frame + 3) + FRAME_EXTRA;
    if (frame[0] == FRAME_METHOD)
        serve_method(c, get32(frame + 7), frame + 11);
    else if (consumer)
        put(&consumer->out, frame, size);
    return size;
}

static void client_read(struct client *c)
{
    ssize_t got = recv(c->fd, c->in.data + c->in.length, c->in.room - c->in.length, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        close(c->fd);
        if (c == consumer)
            consumer = NULL;
        free(c->in.data), free(c->out.data);
        *c = (struct client){.fd = -1};
        return;
    }
    c->in.length += (size_t)got;
    size_t at = 0, size;
    while ((size = serve_frame(c, c->in.data + at, c->in.length - at)))
        at += size;
    memmove(c->in.data, c->in.data + at, c->in.length - at);
    c->in.length -= at;
    if (c->confirms && c->published > c->confirmed) {
        size_t frame = begin_method(&c->out, 1, BASIC_ACK);
        put64(&c->out, c->confirmed = c->published), put8(&c->out, 1);
        end_frame(&c->out, frame);
    }
}

static void client_write(struct client *c)
{
    ssize_t wrote = send(c->fd, c->out.data + c->out_sent, c->out.length - c->out_sent, MSG_NOSIGNAL);
    c->out_sent += wrote < 0 ? 0 : (size_t)wrote;
    if (c->out_sent == c->out.length)
        c->out.length = c->out_sent = 0;
}

static void client_accept(int listener)
{
    struct client *c = clients;
    while (c < clients + MAX_CLIENTS && c->fd >= 0)
        c++;
    int fd = accept(listener, NULL, NULL);
    if (fd < 0 || c == clients + MAX_CLIENTS)
        fail("no room for another client");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    *c = (struct client){.fd = fd, .in = {malloc(ROOM), 0, ROOM}};
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, MAX_CLIENTS))
        fail("cannot listen: %s", strerror(errno));
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (int i = 0; i < MAX_CLIENTS; i++)
        clients[i].fd = -1;
    for (;;) {
        struct pollfd polled[MAX_CLIENTS + 1];
        for (int i = 0; i < MAX_CLIENTS; i++)
            polled[i] = (struct pollfd){clients[i].fd, (short)(POLLIN | (clients[i].out.length ? POLLOUT : 0)), 0};
        polled[MAX_CLIENTS] = (struct pollfd){listener, POLLIN, 0};
        poll(polled, MAX_CLIENTS + 1, -1);
        for (int i = 0; i < MAX_CLIENTS; i++) {
            if (clients[i].fd >= 0 && polled[i].revents & ~POLLOUT)
                client_read(&clients[i]);
            if (clients[i].fd >= 0 && clients[i].out.length)
                client_write(&clients[i]);
        }
        if (polled[MAX_CLIENTS].revents)
            client_accept(listener);
    }
}
