/* What the load generators do alike: watch sockets, go on until all is done, find the mode that they are asked for. */
#ifndef LOAD_H
#define LOAD_H

#include "wire.h"

#include <sys/epoll.h>

#define STALL_SECONDS 120.0 /* without any progress: give up */
#define MAX_EVENTS 256

struct mode {
    const char *name;
    void (*run)(void);
};

extern uint64_t total_sent, total_confirmed, total_delivered;
extern uint64_t copies; /* deliveries of one message */

/* Have `load_wait` tell when there is something to read, or to write where it is blocked. */
void watch(struct stream *, uint64_t number, bool added);
/* Watch no more. */
void unwatch(struct stream *);
/* What is there within so many milliseconds. Gives the count of events; their data is the number of the stream. */
int load_wait(struct epoll_event events[MAX_EVENTS], int milliseconds);
/* Take turns until `done` says so, or this time is reached. */
void run(void (*turn)(void), bool (*done)(void), double until);
bool never(void);
/* Run the mode that is the first argument, with the options that are the others, and print what it measures. */
int load_main(int count, char **arguments, const struct mode *modes, size_t mode_count);
#endif
