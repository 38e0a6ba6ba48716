/* MQTT 3.1.1 on the wire, as much as a load generator needs. What goes wrong ends the program through fail(). */
#ifndef MQTT_H
#define MQTT_H

#include "wire.h"

#define CONNACK 0x20
#define PUBLISH 0x30
#define PUBACK 0x40
#define PUBREC 0x50
#define PUBREL 0x62
#define PUBCOMP 0x70
#define SUBSCRIBE 0x82
#define SUBACK 0x90
#define RETAIN 0x01
#define DUP 0x08

struct client;
/* A packet but for CONNACK: its first byte, and what comes after its length. */
typedef void packet_handler(struct client *, unsigned first, const uint8_t *rest, size_t size);

struct client {
    struct stream stream;
    packet_handler *handler;
    void *owner;
    uint32_t answers; /* SUBACKs that came */
};

/* Connect as this client, wait for CONNACK, and go on without blocking. clean: without the session of before. */
void client_open(struct client *, const char *id, bool clean, packet_handler *, void *owner);
/* Subscribe, and wait until that is granted. What comes in meanwhile is handed out. */
void client_subscribe(struct client *, const char *filter, unsigned granted);
/* Take what the socket has, once, and hand out its whole packets. */
void client_read(struct client *);
/* DISCONNECT, and close. */
void client_close(struct client *);

/* A PUBACK, PUBREC, PUBREL, PUBCOMP in `out`. */
void put_answer(struct client *, unsigned first, unsigned id);
/* A PUBLISH of `size` bytes of payload, zeros, with packet id 0. Gives where in the buffer its payload is; the packet id
 * (not with QoS 0) is right before it. */
size_t put_publish(struct buffer *, unsigned flags, const char *topic, size_t size);
/* The parts of a PUBLISH: where its payload is; *id is 0 with QoS 0. */
const uint8_t *read_publish(unsigned first, const uint8_t *rest, size_t size, unsigned *id, size_t *length);
#endif
