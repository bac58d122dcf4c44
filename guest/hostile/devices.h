/* Devices: xenstore (store.c), grants, rings (devices.c). */
#pragma once
#include "kernel.h"

/* store.c: requests to the store; lengths, or -1 for an error's reply. */
s64 store_call(u32 type, const char *path, const void *rest, u64 length, char *reply, u64 room);
s64 store_read(const char *path, char *to, u64 room);
void store_write(const char *path, const char *value);
const char *number(u64 value);
const char *joined(const char *a, const char *b, const char *c);

/* devices.c */
#define GRANTS 2048
struct grant { u16 flags, domid; u32 frame; };
extern volatile struct grant *grants;
void init_grants(void);
u32 grant(const void *va, int read_only);
u32 grant_frame(u64 frame, u16 flags);
void revoke(u32 reference);
u32 unbound_port(void);
void notify(u32 port);
/* Looks again and again, for a few seconds. */
int wait_until(int (*good)(void *), void *argument);

/* A device's directory is "device/CLASS/NUMBER"; states as in io/xenbus.h. */
struct device { char front[64], back[128]; };
int find_device(struct device *d, const char *class, const char *number);
int backend_is(struct device *d, int state);
void set_state(struct device *d, int state);
void set_node(struct device *d, const char *key, const char *value);
/* Lets the device be opened anew, whatever state it is in. */
int start_over(struct device *d);
