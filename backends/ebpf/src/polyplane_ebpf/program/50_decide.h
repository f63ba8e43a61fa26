/* Connections, and the decision about one packet. */

INLINE u64 lifetime(u8 protocol, u8 closing)
{
    if (closing)
        return LIFETIME_CLOSING;
    if (protocol == TCP || protocol == SCTP)
        return LIFETIME_TCP;
    return protocol == ICMP || protocol == ICMPV6 ? LIFETIME_ICMP : LIFETIME_OTHER;
}

INLINE struct connection *connection_of(const struct flow *flow, u64 now)
{
    struct connection *connection = map_lookup(MAP(CONNECTIONS), flow);
    if (connection && now - connection->seen > lifetime(flow->protocol, connection->closing))
        return 0;
    return connection;
}

INLINE void turn_round(struct flow *to, const struct flow *from)
{
    to->source = from->destination;
    to->destination = from->source;
    to->sender = from->receiver;
    to->receiver = from->sender;
    to->source_port = from->port;
    to->port = from->source_port;
    to->protocol = from->protocol;
    to->zero[0] = to->zero[1] = to->zero[2] = 0;
}

INLINE void touch(struct connection *connection, u64 now, u8 closes)
{
    if (now - connection->seen > SECOND)
        connection->seen = now;                  /* not each time: other processors read the same line */
    if (closes)
        connection->closing = 1;
}

INLINE int holds(const struct config *config, const struct connection *connection, u64 generation)
{
    if (connection->standing == OF_NODE)
        return 1;
    return connection->standing == APPROVED && (config->keep || (connection->generation == generation && !(generation & 1)));
}

/* Looks for the connection that the packet belongs to, and says what to ask; returns 1 if nothing is left to ask. */
INLINE int belongs(const struct config *config, struct scratch *scratch, struct connection **ours, struct connection **theirs, u64 now,
                   u64 generation)
{
    struct packet *packet = &scratch->packet;
    struct flow *flow = &packet->flow;
    scratch->ask_for = 1;
    if (packet->answers) {
        *theirs = connection_of(&scratch->back, now);
        if (*theirs) {
            scratch->ask_for = 2;
            if (!holds(config, *theirs, generation))
                return 0;
            touch(*theirs, now, packet->closes);
            return 1;
        }
    }
    if (!packet->tracked)
        return 0;
    *ours = connection_of(flow, now);
    if (*ours) {
        if (packet->opens || !holds(config, *ours, generation))
            return 0;
        touch(*ours, now, packet->closes);
        count((*ours)->egress_rule, packet->length);
        count((*ours)->ingress_rule, packet->length);
        return 1;
    }
    /* In the middle of a connection that we do not know: nobody can say who opened it, so both ways must be allowed. */
    if (flow->protocol == TCP && !packet->opens)
        scratch->ask_for = 3;
    return 0;
}

/* Notes which stacks to ask. Turn 0 and 1: egress and ingress, the packet seen as the first of a connection; 2 and 3: as the answer. */
INLINE void prepare(struct scratch *scratch, const struct endpoint *from, const struct endpoint *to)
{
    u8 itself = from && to && from->id == to->id;
    scratch->stack[0] = scratch->stack[1] = scratch->stack[2] = scratch->stack[3] = 0;
    if (from) {
        if (scratch->ask_for & 1)
            scratch->stack[0] = itself ? from->self_egress : from->egress;
        if (scratch->ask_for & 2)
            scratch->stack[3] = itself ? from->self_ingress : from->ingress;
        scratch->view[0] = scratch->view[3] = from->view;
    }
    if (to) {
        if (scratch->ask_for & 1)
            scratch->stack[1] = itself ? to->self_ingress : to->ingress;
        if (scratch->ask_for & 2)
            scratch->stack[2] = itself ? to->self_egress : to->egress;
        scratch->view[1] = scratch->view[2] = to->view;
    }
}

INLINE void ask_all(const struct config *config, struct scratch *scratch)
{
    struct packet *packet = &scratch->packet;
    struct flow *flow = &packet->flow;
    KEEP_LOOP
    for (u32 turn = 0; turn < 4; turn++) {
        u32 answering = turn >> 1, side = turn & 1;
        u64 stack = scratch->stack[turn];
        if (scratch->denied || !stack)
            continue;
        struct address peer = answering == side ? flow->destination : flow->source;
        if (side == INGRESS && is_node(packet->family, &peer))
            continue;
        u16 port = 0, number = answering ? packet->icmp_opened : packet->icmp;
        if (has_ports(flow->protocol)) {
            port = answering ? flow->source_port : flow->port;
            number = answering ? flow->port : flow->source_port;
        }
        ask(config, scratch, stack, scratch->view[turn], side, &peer, port, number);
    }
}

/* Returns ALLOW if the packet may go on. `from` and `to` are the endpoints it comes from and goes to, null for none. */
INLINE int decide(const struct config *config, struct scratch *scratch, struct endpoint *from, struct endpoint *to)
{
    struct packet *packet = &scratch->packet;
    struct flow *flow = &packet->flow;
    struct connection *ours = 0, *theirs = 0;
    u64 now = time_now(), generation = *(volatile u64 *)&config->generation;

    scratch->rule[EGRESS] = scratch->rule[INGRESS] = scratch->denied_by = 0;
    scratch->denied = scratch->denied_side = 0;
    turn_round(&scratch->back, flow);
    if (belongs(config, scratch, &ours, &theirs, now, generation))
        return ALLOW;
    prepare(scratch, from, to);
    ask_all(config, scratch);
    u8 denied = scratch->denied;
    if (theirs) {                                /* approved anew, or not any more */
        theirs->standing = denied ? DENIED : APPROVED;
        theirs->egress_rule = scratch->rule[EGRESS];
        theirs->ingress_rule = scratch->rule[INGRESS];
        theirs->generation = generation;
        touch(theirs, now, packet->closes);
    } else if (ours && denied) {
        ours->standing = DENIED;                 /* kept, so that the other side cannot open it the other way round */
        ours->generation = generation;
        touch(ours, now, packet->closes);
    } else if (!denied && packet->tracked) {
        struct connection fresh = {
            .generation = generation, .seen = now, .egress_rule = scratch->rule[EGRESS], .ingress_rule = scratch->rule[INGRESS],
            .standing = APPROVED, .closing = packet->closes };
        map_update(MAP(CONNECTIONS), flow, &fresh, 0);
        if (packet->opens && flow->protocol == TCP)
            map_delete(MAP(CONNECTIONS), &scratch->back);
        if (config->reject && has_ports(flow->protocol)) {
            /* what was refused a moment ago is an answer from now on */
            scratch->back.sender = scratch->back.receiver = 0;
            map_delete(MAP(REFUSALS), &scratch->back);
        }
    }
    if (denied) {
        count(scratch->denied_by, packet->length);
        tell(config, packet, scratch->denied_by, scratch->denied_side, EVENT_DENY);
        return DENY;
    }
    if (!theirs) {
        count(scratch->rule[EGRESS], packet->length);
        count(scratch->rule[INGRESS], packet->length);
    }
    return ALLOW;
}

/* Whether an ICMP error is about a packet of a connection that is still allowed. */
INLINE int is_related(struct reader *reader, struct scratch *scratch)
{
    struct flow *quoted = &scratch->quoted;
    u8 family = scratch->packet.family;
    __builtin_memset(quoted, 0, sizeof(*quoted));
    scratch->quoted_at = scratch->packet.at + 8;
    if (network_layer(reader, &scratch->quoted_at, family, quoted))
        return 0;
    if (has_ports(quoted->protocol)) {
        if (load_ports(reader, scratch->quoted_at, quoted))
            return 0;
    } else if (quoted->protocol == ICMP || quoted->protocol == ICMPV6) {
        if (LOAD(reader, scratch->quoted_at + 4, &quoted->source_port, 2))
            return 0;
        quoted->port = quoted->source_port;
    }
    /* By address: the error may come from a router on the way, through any interface. */
    u32 nowhere = 0;
    struct endpoint *sender = endpoint_at(nowhere, family, &quoted->source);
    struct endpoint *receiver = endpoint_at(nowhere, family, &quoted->destination);
    quoted->sender = sender ? sender->id : 0;
    quoted->receiver = receiver ? receiver->id : 0;
    u64 now = time_now();
    struct connection *connection = connection_of(quoted, now);
    if (!connection) {
        turn_round(&scratch->back, quoted);
        connection = connection_of(&scratch->back, now);
    }
    return connection && connection->standing != DENIED;
}
