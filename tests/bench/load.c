/* See load.h. */
#include "load.h"
#include "measure.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define SAMPLE_SECONDS 0.1 /* between looks at the broker's memory */

uint64_t total_sent, total_confirmed, total_delivered;
uint64_t copies = 1;
static int poller;

void watch(struct stream *s, uint64_t number, bool added)
{
    struct epoll_event event = {.events = EPOLLIN | (s->blocked ? EPOLLOUT : 0), .data.u64 = number};
    if (added && s->watched == s->blocked)
        return;
    if (epoll_ctl(poller, added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s->fd, &event))
        fail("epoll refuses a connection");
    s->watched = s->blocked;
}

void unwatch(struct stream *s) { epoll_ctl(poller, EPOLL_CTL_DEL, s->fd, NULL); }

int load_wait(struct epoll_event events[MAX_EVENTS], int milliseconds)
{
    return epoll_wait(poller, events, MAX_EVENTS, milliseconds);
}

bool never(void) { return false; }

void run(void (*turn)(void), bool (*done)(void), double until)
{
    double moved = now(), sampled = 0;
    uint64_t before = 0;
    while (!done()) {
        turn();
        double time = now();
        if (time >= until)
            return;
        if (time < sampled + SAMPLE_SECONDS)
            continue;
        sampled = time;
        broker_rss_kib();
        uint64_t progress = total_sent + total_delivered + total_confirmed;
        if (progress != before)
            before = progress, moved = time;
        if (time > moved + STALL_SECONDS)
            fail("no progress in %.0f seconds: sent %llu, confirmed %llu, delivered %llu of %llu", STALL_SECONDS,
                 (unsigned long long)total_sent, (unsigned long long)total_confirmed,
                 (unsigned long long)total_delivered, (unsigned long long)(total_sent * copies));
    }
}

int load_main(int count, char **arguments, const struct mode *modes, size_t mode_count)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    parse_options(count - 2, arguments + 2);
    wire_target(host, (int)port);
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; count > 1 && i < mode_count; i++)
        if (!strcmp(arguments[1], modes[i].name)) {
            printf("{\"phases\": [");
            modes[i].run();
            puts("]}");
            return 0;
        }
    fail("the first argument is no mode of this program");
}
