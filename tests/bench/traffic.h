/* Publishers, consumers, and the exchanges and queues between them, as the options of measure.h describe them. */
#ifndef TRAFFIC_H
#define TRAFFIC_H

#include "load.h"

struct publisher {
    struct connection connection;
    uint32_t number;
    uint64_t sent, confirmed, unconfirmed_from; /* counts; the lowest delivery tag without a confirm */
    uint64_t delivered;                         /* how often consumers got a message of this publisher */
    uint8_t *block;                             /* `batch` messages of `message_bytes`, ready but for their numbers */
    size_t message_bytes, batch, number_at, key_at, key_size;
    size_t block_size, block_sent;              /* the part of it that is being written */
    uint8_t seen[65536];                        /* by delivery tag: confirmed ahead of `unconfirmed_from` */
};

struct consumer {
    struct connection connection;
    uint64_t last_tag, unacked;
    long queue;       /* of the message that is coming in */
    uint64_t missing; /* bytes of it still to come */
    bool fresh;       /* its body has not begun */
    int due;          /* the type of frame that must come next */
};

extern struct publisher *all_publishers;
extern struct consumer *all_consumers;
extern uint64_t limit;  /* messages a publisher may send */
extern bool draining;   /* consumers acknowledge at once */

void declare_topology(void); /* phases "declare" and, of a topic exchange, "bind" */
void delete_topology(void);  /* fails when a queue was not empty */
void publisher_open(struct publisher *, uint32_t number);
void consumer_open(struct consumer *, long number);
/* Write one block of messages, if a tenth of the window is free. Returns whether there may be more to write. */
bool pump(struct publisher *);
/* Read and acknowledge what is there. */
void consumer_serve(struct consumer *);
#endif
