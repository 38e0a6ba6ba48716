/* What a run is asked to do, and what it measures. */
#ifndef MEASURE_H
#define MEASURE_H

#include <stdbool.h>
#include <stdint.h>

/* key=value on the command line; sizes in bytes, times in seconds. */
extern const char *host;
extern long port;
extern long size, durable, confirm;                    /* of a message; confirm: wait for confirms */
extern long publishers, queues, consumers;             /* how many; consumers share the queues among them */
extern long fanout, bindings;                          /* through a fanout exchange, or a topic exchange with so many */
extern long ack, prefetch;                             /* ack: 0 none, 1 each by itself, N every N at once */
extern long qos, persistent;                           /* of MQTT: 0 to 2; sessions that outlive their connection */
extern long window, ahead;                             /* messages unconfirmed, and undelivered, a publisher */
extern long messages;                                  /* of a backlog */
extern long connections, parallel;                     /* idle or churning; handshakes at once */
extern double seconds, warmup;

#define MAX_WINDOW 65536

void parse_options(int count, char **options);

/* A phase is what lies between these; `in` and `out` count messages (or operations) since the start of the run. */
void phase_begin(uint64_t in, uint64_t out);
void phase_end(const char *name, uint64_t in, uint64_t out);
/* Resident memory of the broker's processes now; remembers the peak since the phase began. */
long broker_rss_kib(void);
#endif
