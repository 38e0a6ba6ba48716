/* See measure.h. */
#include "measure.h"
#include "wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_PIDS 64

const char *host = "127.0.0.1";
long port = 5672, size = 100, publishers = 1, queues = 1, consumers = 1, fanout, bindings, durable, confirm;
long ack, prefetch, qos, persistent, window = 1000, ahead = 10000, messages = 1000000, connections = 1000, parallel = 20;
double seconds = 5, warmup = 1;
static long pids[MAX_PIDS], pid_count;

void parse_options(int count, char **options)
{
    struct { const char *name; long *value; } numbers[] = {
        {"port", &port}, {"size", &size}, {"publishers", &publishers}, {"queues", &queues}, {"consumers", &consumers},
        {"fanout", &fanout}, {"bindings", &bindings}, {"durable", &durable}, {"confirm", &confirm}, {"ack", &ack},
        {"prefetch", &prefetch}, {"window", &window}, {"ahead", &ahead}, {"messages", &messages},
        {"connections", &connections}, {"parallel", &parallel}, {"qos", &qos}, {"persistent", &persistent}};
    for (int i = 0; i < count; i++) {
        char *value = strchr(options[i], '=');
        bool known = false;
        if (!value)
            fail("not key=value: %s", options[i]);
        *value++ = 0;
        for (size_t j = 0; j < sizeof numbers / sizeof *numbers; j++)
            if (!strcmp(options[i], numbers[j].name))
                *numbers[j].value = atol(value), known = true;
        if (!strcmp(options[i], "host"))
            host = value, known = true;
        if (!strcmp(options[i], "seconds"))
            seconds = atof(value), known = true;
        if (!strcmp(options[i], "warmup"))
            warmup = atof(value), known = true;
        if (!strcmp(options[i], "pids"))
            for (char *pid = strtok(value, ","); known = true, pid && pid_count < MAX_PIDS; pid = strtok(NULL, ","))
                pids[pid_count++] = atol(pid);
        if (!known)
            fail("no such option: %s", options[i]);
    }
    if (window >= MAX_WINDOW || size < 12 || publishers < 1 || queues < 1 || consumers < 0 || connections < 1)
        fail("an option is out of its bounds");
}

/* ---- measuring ---- */

struct sample {
    double time, cpu, own_cpu;
    uint64_t in, out;
};

static struct sample begun;
static long peak_kib, rss_from_kib;
static bool first_phase = true;

/* Processor time of the broker's processes with all their threads, user and system. */
static double broker_cpu(void)
{
    double ticks = 0;
    for (long i = 0; i < pid_count; i++) {
        char path[64], text[1024];
        unsigned long user, system;
        snprintf(path, sizeof path, "/proc/%ld/stat", pids[i]);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        size_t got = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        text[got] = 0;
        char *fields = strrchr(text, ')');
        if (fields && sscanf(fields + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
            ticks += (double)(user + system);
    }
    return ticks / (double)sysconf(_SC_CLK_TCK);
}

long broker_rss_kib(void)
{
    long total = 0;
    for (long i = 0; i < pid_count; i++) {
        char path[64];
        long pages = 0;
        snprintf(path, sizeof path, "/proc/%ld/statm", pids[i]);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        if (fscanf(file, "%*d %ld", &pages) == 1)
            total += pages;
        fclose(file);
    }
    total *= sysconf(_SC_PAGESIZE) / 1024;
    if (total > peak_kib)
        peak_kib = total;
    return total;
}

static double own_cpu(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static struct sample take(uint64_t in, uint64_t out)
{
    return (struct sample){now(), broker_cpu(), own_cpu(), in, out};
}

void phase_begin(uint64_t in, uint64_t out)
{
    peak_kib = 0;
    rss_from_kib = broker_rss_kib();
    begun = take(in, out);
}

void phase_end(const char *name, uint64_t in, uint64_t out)
{
    struct sample s = take(in, out);
    long rss = broker_rss_kib();
    printf("%s{\"name\": \"%s\", \"seconds\": %.6f, \"in\": %llu, \"out\": %llu, \"cpu\": %.4f, \"own_cpu\": %.4f, "
           "\"rss_from_kib\": %ld, \"rss_kib\": %ld, \"peak_kib\": %ld}",
           first_phase ? "" : ", ", name, s.time - begun.time, (unsigned long long)(s.in - begun.in),
           (unsigned long long)(s.out - begun.out), s.cpu - begun.cpu, s.own_cpu - begun.own_cpu, rss_from_kib, rss,
           peak_kib);
    first_phase = false;
}
