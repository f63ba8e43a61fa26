/* Counters and events. */

INLINE void count(u32 rule, u32 length)
{
    if (!rule)
        return;
    struct counter *counter = map_lookup(MAP(COUNTERS), &rule);
    if (counter) {
        counter->packets += 1;
        counter->bytes += length;
        return;
    }
    struct counter first = { .packets = 1, .bytes = length };
    map_update(MAP(COUNTERS), &rule, &first, 0);
}

INLINE void tell(const struct config *config, const struct packet *packet, u32 rule, u8 side, u8 kind)
{
    u32 only = 0;
    struct allowance *allowance = map_lookup(MAP(ALLOWANCE), &only);
    if (!allowance)
        return;
    u64 now = time_now();
    if (now - allowance->since > SECOND) {
        allowance->since = now;
        allowance->used = 0;
    }
    if (allowance->used >= config->events) {
        allowance->lost += 1;
        return;
    }
    allowance->used += 1;
    struct event *event = ringbuf_reserve(MAP(EVENTS), sizeof(*event), 0);
    if (!event) {
        allowance->lost += 1;
        return;
    }
    event->time = now;
    event->sender = packet->flow.sender;
    event->receiver = packet->flow.receiver;
    event->source = packet->flow.source;
    event->destination = packet->flow.destination;
    event->rule = rule;
    event->source_port = packet->flow.source_port;
    event->port = packet->flow.port;
    event->icmp = packet->icmp;
    event->protocol = packet->flow.protocol;
    event->family = packet->family;
    event->side = side;
    event->kind = kind;
    event->zero = 0;
    ringbuf_submit(event, 0);
}
