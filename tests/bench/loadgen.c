/* A load generator for AMQP 0-9-1 brokers: one thread, raw sockets, frames built beforehand, so that the broker is what
 * gets measured. bench.py runs it and says what its rows mean.
 *
 *     loadgen MODE key=value ...      the keys are in measure.h
 *
 *     flow     publish to consumers for `seconds`, after `warmup`; phases declare, [bind,] flow
 *     backlog  publish `messages`, all confirmed, to queues without consumers, then consume them; phases declare,
 *              publish, drain, after
 *     idle     open `connections` with a channel each and let them be for `seconds`; phases open, idle
 *     churn    open, open a channel, and close, `parallel` at a time, for `seconds`; phase churn
 *
 * It prints one line of JSON: {"phases": [{"name", "seconds", "in", "out", "cpu", "own_cpu", "rss_from_kib", "rss_kib",
 * "peak_kib"}]}: messages (or operations) into and out of the broker, seconds of CPU of the broker and of this program,
 * the broker's memory. Or, on the last line, {"error": "..."}, and exit code 1. */
#include "load.h"
#include "measure.h"
#include "traffic.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- publishers and consumers ---- */

static void turn(void)
{
    struct epoll_event events[MAX_EVENTS];
    bool more = false;
    for (long i = 0; i < publishers; i++) {
        struct publisher *p = &all_publishers[i];
        if (!p->connection.stream.blocked)
            more |= pump(p);
        watch(&p->connection.stream, (uint64_t)i, true);
    }
    int count = load_wait(events, more ? 0 : 10);
    for (int i = 0; i < count; i++) {
        long number = (long)events[i].data.u64;
        if (number < publishers) {
            struct connection *c = &all_publishers[number].connection;
            if (events[i].events & EPOLLOUT)
                c->stream.blocked = false;
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                connection_read(c);
        } else {
            struct consumer *consumer = &all_consumers[number - publishers];
            consumer_serve(consumer);
            watch(&consumer->connection.stream, (uint64_t)number, true);
        }
    }
}

static bool all_written(void)
{
    for (long i = 0; i < publishers; i++)
        if (all_publishers[i].block_sent < all_publishers[i].block_size)
            return false;
    return !confirm || total_confirmed == total_sent;
}

static bool all_published(void) { return total_sent == limit * (uint64_t)publishers && all_written(); }

static bool all_delivered(void) { return all_written() && total_delivered == total_sent * copies; }

static void open_publishers(void)
{
    all_publishers = calloc((size_t)publishers, sizeof *all_publishers);
    for (long i = 0; i < publishers; i++) {
        publisher_open(&all_publishers[i], (uint32_t)i);
        watch(&all_publishers[i].connection.stream, (uint64_t)i, false);
    }
}

static void open_consumers(void)
{
    all_consumers = calloc((size_t)consumers + 1, sizeof *all_consumers);
    for (long i = 0; i < consumers; i++) {
        consumer_open(&all_consumers[i], i);
        watch(&all_consumers[i].connection.stream, (uint64_t)(publishers + i), false);
    }
}

/* Let all arrive, acknowledge it, close, and see that the queues are empty. */
static void finish(void)
{
    draining = true;
    run(turn, all_delivered, 1e300);
    for (long i = 0; i < consumers; i++) {
        consumer_serve(&all_consumers[i]);
        connection_ask_close(&all_consumers[i].connection);
        connection_await(&all_consumers[i].connection, CONNECTION_CLOSE_OK, 1);
    }
    for (long i = 0; i < publishers; i++) {
        connection_ask_close(&all_publishers[i].connection);
        connection_await(&all_publishers[i].connection, CONNECTION_CLOSE_OK, 1);
    }
    delete_topology();
}

static void flow(void)
{
    declare_topology();
    open_publishers();
    open_consumers();
    run(turn, never, now() + warmup);
    phase_begin(total_sent, total_delivered);
    run(turn, never, now() + seconds);
    phase_end("flow", total_sent, total_delivered);
    limit = 0;
    finish();
}

static void backlog(void)
{
    limit = (uint64_t)(messages / publishers), ahead = 0, confirm = 1;
    declare_topology();
    open_publishers();
    phase_begin(0, 0);
    run(turn, all_published, 1e300);
    phase_end("publish", total_sent, 0);
    open_consumers();
    phase_begin(0, 0);
    run(turn, all_delivered, 1e300);
    phase_end("drain", 0, total_delivered);
    finish();
    phase_begin(0, 0);
    usleep(1000000);
    phase_end("after", 0, 0);
}

/* ---- connections without traffic ---- */

static struct connection *all_connections;
static long opened, closed;

static void open_connection(long number)
{
    connection_start(&all_connections[number], NULL, NULL);
    watch(&all_connections[number].stream, (uint64_t)number, false);
}

/* Serve handshakes; `ready` is called for each connection that became ready or closed. */
static void serve_connections(void (*changed)(long))
{
    struct epoll_event events[MAX_EVENTS];
    int count = load_wait(events, 100);
    for (int i = 0; i < count; i++) {
        long number = (long)events[i].data.u64;
        struct connection *c = &all_connections[number];
        bool was_ready = c->ready, was_closed = c->closed;
        if (events[i].events & EPOLLOUT)
            stream_flush(&c->stream);
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            connection_read(c);
        watch(&c->stream, (uint64_t)number, true);
        if (c->ready != was_ready || c->closed != was_closed)
            changed(number);
    }
}

static void next_idle(long number)
{
    (void)number;
    closed++; /* here: done with its handshake */
    if (opened < connections)
        open_connection(opened++);
}

static void idle(void)
{
    double end = now() + STALL_SECONDS * 2;
    all_connections = calloc((size_t)connections, sizeof *all_connections);
    phase_begin(0, 0);
    for (; opened < parallel && opened < connections; opened++)
        open_connection(opened);
    while (closed < connections) {
        serve_connections(next_idle);
        if (now() > end)
            fail("only %ld connections in %.0f seconds", closed, STALL_SECONDS * 2);
    }
    phase_end("open", (uint64_t)closed, 0);
    phase_begin(0, 0);
    for (end = now() + seconds; now() < end;)
        serve_connections(next_idle); /* a dropped one ends the run */
    phase_end("idle", 0, 0);
    for (long i = 0; i < connections; i++)
        connection_ask_close(&all_connections[i]);
    for (long i = 0; i < connections; i++)
        connection_await(&all_connections[i], 0, !all_connections[i].closed);
}

static void next_churn(long number)
{
    struct connection *c = &all_connections[number];
    if (!c->closed) {
        connection_ask_close(c);
        return;
    }
    connection_drop(c);
    closed++;
    open_connection(number);
}

static void churn(void)
{
    all_connections = calloc((size_t)parallel, sizeof *all_connections);
    for (long i = 0; i < parallel; i++)
        open_connection(i);
    for (double end = now() + warmup; now() < end;)
        serve_connections(next_churn);
    long from = closed;
    phase_begin(0, 0);
    for (double end = now() + seconds; now() < end;)
        serve_connections(next_churn);
    phase_end("churn", (uint64_t)(closed - from), 0);
    if (closed == from)
        fail("not one connection in %.0f seconds", seconds);
}

int main(int count, char **arguments)
{
    struct mode modes[] = {{"flow", flow}, {"backlog", backlog}, {"idle", idle}, {"churn", churn}};
    return load_main(count, arguments, modes, sizeof modes / sizeof *modes);
}
