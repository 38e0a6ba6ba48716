/* AMQP 0-9-1 on the wire, as much as a load generator needs: frames, the handshake, requests that wait for their
 * answer. Everything that goes wrong ends the program through fail(), for a benchmark has nothing to repair. */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_METHOD 1
#define FRAME_HEADER 2
#define FRAME_BODY 3
#define FRAME_END 0xCE
#define FRAME_EXTRA 8 /* bytes of a frame beside its payload */

#define METHOD(class, method) ((uint32_t)(class) << 16 | (method))
#define CONNECTION_START METHOD(10, 10)
#define CONNECTION_START_OK METHOD(10, 11)
#define CONNECTION_TUNE METHOD(10, 30)
#define CONNECTION_TUNE_OK METHOD(10, 31)
#define CONNECTION_OPEN METHOD(10, 40)
#define CONNECTION_OPEN_OK METHOD(10, 41)
#define CONNECTION_CLOSE METHOD(10, 50)
#define CONNECTION_CLOSE_OK METHOD(10, 51)
#define CHANNEL_OPEN METHOD(20, 10)
#define CHANNEL_OPEN_OK METHOD(20, 11)
#define CHANNEL_CLOSE METHOD(20, 40)
#define CHANNEL_CLOSE_OK METHOD(20, 41)
#define EXCHANGE_DECLARE METHOD(40, 10)
#define EXCHANGE_DECLARE_OK METHOD(40, 11)
#define EXCHANGE_DELETE METHOD(40, 20)
#define EXCHANGE_DELETE_OK METHOD(40, 21)
#define QUEUE_DECLARE METHOD(50, 10)
#define QUEUE_DECLARE_OK METHOD(50, 11)
#define QUEUE_BIND METHOD(50, 20)
#define QUEUE_BIND_OK METHOD(50, 21)
#define QUEUE_DELETE METHOD(50, 40)
#define QUEUE_DELETE_OK METHOD(50, 41)
#define BASIC_QOS METHOD(60, 10)
#define BASIC_QOS_OK METHOD(60, 11)
#define BASIC_CONSUME METHOD(60, 20)
#define BASIC_CONSUME_OK METHOD(60, 21)
#define BASIC_PUBLISH METHOD(60, 40)
#define BASIC_RETURN METHOD(60, 50)
#define BASIC_DELIVER METHOD(60, 60)
#define BASIC_ACK METHOD(60, 80)
#define BASIC_NACK METHOD(60, 120)
#define CONFIRM_SELECT METHOD(85, 10)
#define CONFIRM_SELECT_OK METHOD(85, 11)

struct buffer {
    uint8_t *data;
    size_t length, room;
};

/* A socket that does not block, what came in, and what is to go out. */
struct stream {
    int fd;
    bool blocked, watched; /* it takes no more for now; what the poller was told of that */
    struct buffer in, out;
    size_t out_sent;
};

struct connection;
typedef void frame_handler(struct connection *, int type, const uint8_t *payload, size_t size);

/* One connection with channel 1 open on it, once `ready`. */
struct connection {
    struct stream stream;    /* `out` is for all but published messages */
    bool ready;              /* handshake done, channel open */
    bool closed;             /* it asked for the end, and has got it */
    uint32_t frame_max;
    uint32_t answer;         /* the last method that was no delivery and no confirm */
    uint32_t answers;        /* how many of these came */
    uint32_t answer_count;   /* the messages that queue.delete-ok told of, in all */
    frame_handler *handler;  /* gets deliveries, contents and confirms */
    void *owner;
};

void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
double now(void); /* seconds, monotonic */

static inline uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }
static inline uint64_t get64(const uint8_t *p) { return (uint64_t)get32(p) << 32 | get32(p + 4); }
static inline void set32(uint8_t *p, uint32_t v) { p[0] = v >> 24, p[1] = v >> 16, p[2] = v >> 8, p[3] = v; }
static inline void set64(uint8_t *p, uint64_t v) { set32(p, v >> 32), set32(p + 4, (uint32_t)v); }

void buffer_room(struct buffer *, size_t room); /* have room for so many bytes in all */
void put(struct buffer *, const void *data, size_t size);
void put8(struct buffer *, unsigned value);
void put16(struct buffer *, unsigned value);
void put32(struct buffer *, uint32_t value);
void put64(struct buffer *, uint64_t value);
void put_short(struct buffer *, const char *text); /* a short string */
size_t begin_frame(struct buffer *, int type, int channel);
size_t begin_method(struct buffer *, int channel, uint32_t method);
void end_frame(struct buffer *, size_t begun);

/* Where the broker is; set once. */
void wire_target(const char *host, int port);
/* A blocking socket that is connected to it. */
int wire_connect(void);
/* From now on it does not block. */
void stream_unblock(struct stream *);
/* Take what the socket has, once, with room for so many bytes more. False when nothing was there, or its end came that
 * was `due`. */
bool stream_read(struct stream *, size_t room, bool due);
/* What was taken, up to there, is done with. */
void stream_taken(struct stream *, size_t at);
/* Write what is in `out`; sets `blocked`. */
void stream_flush(struct stream *);
/* Write so many bytes, once; sets `blocked`. Gives how many were written. */
size_t stream_write(struct stream *, const uint8_t *data, size_t size);
/* Drop the socket and the buffers. */
void stream_close(struct stream *);
/* Begin to connect; the handshake then goes on by itself in connection_read. */
void connection_start(struct connection *, frame_handler *, void *owner);
/* Connect and wait until it is ready. */
void connection_open(struct connection *, frame_handler *, void *owner);
/* Room to receive in one go, bytes. */
void connection_room(struct connection *, size_t room);
/* Take what the socket has, once, and hand out its whole frames. False when nothing was there. */
bool connection_read(struct connection *);
/* Flush, then wait until `count` answers came, each of which must be `method`. */
void connection_await(struct connection *, uint32_t method, uint32_t count);
/* connection.close; the answer sets `closed`. */
void connection_ask_close(struct connection *);
/* Drop it at once. */
void connection_drop(struct connection *);
#endif
