/* The hooks of netfilter: FORWARD, LOCAL_IN, POST_ROUTING. Addresses are as after service translation and before masquerading.
 * Defragmentation is switched on with the link, so every packet is whole. */

struct netfilter { u64 state; u64 skb; };

INLINE u32 ifindex_of(u64 state, u64 offset)
{
    u64 device = *(u64 *)(state + offset);
    return device ? *(u32 *)(device + PLACEHOLDER(OFFSET_NET_DEVICE_IFINDEX)) : 0;
}

INLINE u8 family_of(u64 state)
{
    return *(u8 *)(state + PLACEHOLDER(OFFSET_NF_HOOK_STATE_PF)) == 2 ? 4 : 6;
}

/* A packet that is let go to be answered where it would leave (`polyplane_answer`), or such an answer coming back, is known by its
 * place in memory, which it keeps on its way through the node. Whatever an earlier packet at that place has left is removed here.
 * Returns whether the note says that this is an answer of ours. */
INLINE u8 take_note(u64 skb)
{
    struct note *note = map_lookup(MAP(NOTES), &skb);
    if (!note)
        return 0;
    u8 answer = note->kind == NOTE_ANSWER && time_now() - note->time < SECOND / 10;
    map_delete(MAP(NOTES), &skb);
    return answer;
}

/* Whether the packet leaves as it is, and not in pieces that nobody would know again. What came in pieces would leave so, too. */
INLINE int leaves_whole(u64 state, u64 skb, const struct packet *packet)
{
    u64 mark = skb + PLACEHOLDER(OFFSET_SK_BUFF_CB);
    u64 device = *(u64 *)(state + PLACEHOLDER(OFFSET_NF_HOOK_STATE_OUT));
    if (!device || packet->length > *(u32 *)(device + PLACEHOLDER(OFFSET_NET_DEVICE_MTU)))
        return 0;
    if (packet->family == 4) {
        mark += PLACEHOLDER(OFFSET_INET_SKB_PARM_FRAG_MAX_SIZE);
        return packet->length <= 552 && !*(u8 *)mark && !*(u8 *)(mark + 1);
    }
    mark += PLACEHOLDER(OFFSET_INET6_SKB_PARM_FRAG_MAX_SIZE);
    return packet->length <= 1280 && !*(u8 *)mark && !*(u8 *)(mark + 1);
}

/* The first half of the kernel's `struct nf_conntrack_tuple_hash`, and what follows a list node of 16 bytes in it. */
#define TUPLE_HASH 56
struct tuple { struct address source; u16 source_port; u16 family; struct address destination; u16 port; u8 protocol; u8 direction; };

/* Remembers a denied packet, so that the next one of its kind is answered where it comes in (`polyplane_refuse`): with its addresses
 * before any translation, which are known to conntrack. */
INLINE void remember(u64 skb, const struct config *config, struct scratch *scratch)
{
    const struct flow *flow = &scratch->packet.flow;
    struct flow *wire = &scratch->quoted;
    if (!has_ports(flow->protocol))
        return;
    *wire = *flow;
    wire->sender = wire->receiver = 0;
    if (PLACEHOLDER(OFFSET_NF_CONN_TUPLEHASH) != NOWHERE && PLACEHOLDER(OFFSET_SK_BUFF_NFCT) != NOWHERE) {
        u64 tracked = *(u64 *)(skb + PLACEHOLDER(OFFSET_SK_BUFF_NFCT));
        u64 connection = tracked & ~7ULL;
        if (connection) {
            struct tuple tuple;
            connection += PLACEHOLDER(OFFSET_NF_CONN_TUPLEHASH) + 16;
            if ((tracked & 7) >= 3)
                connection += TUPLE_HASH;        /* the direction of the answers */
            if (read_kernel(&tuple, sizeof(tuple), (void *)connection))
                return;
            wire->source_port = tuple.source_port;
            wire->port = tuple.port;
            if (scratch->packet.family == 4) {
                wire->source.word[3] = tuple.source.word[0];
                wire->destination.word[3] = tuple.destination.word[0];
            } else {
                wire->source = tuple.source;
                wire->destination = tuple.destination;
            }
        }
    }
    struct refusal refusal = { .time = time_now(), .generation = config->generation, .rule = scratch->denied_by };
    map_update(MAP(REFUSALS), wire, &refusal, 0);
}

/* Returns the verdict on a denied packet: ALLOW if it goes on to be answered where it would leave. */
INLINE int refuse(u64 state, u64 skb, const struct config *config, struct scratch *scratch, u32 out)
{
    const struct packet *packet = &scratch->packet;
    if (packet->resets || packet->error)
        return DENY;
    if (out && leaves_whole(state, skb, packet) && map_lookup(MAP(ANSWERING), &out)) {
        struct note note = { .time = time_now(), .kind = NOTE_REFUSED };
        return map_update(MAP(NOTES), &skb, &note, 0) ? DENY : ALLOW;
    }
    remember(skb, config, scratch);
    return DENY;
}

/* FORWARD and LOCAL_IN: the policy of whoever sends, and of whoever receives. */
int polyplane_filter(struct netfilter *context)
{
    u64 state = context->state, skb = context->skb;
    u8 local = *(u8 *)(state + PLACEHOLDER(OFFSET_NF_HOOK_STATE_HOOK)) == HOOK_LOCAL_IN;
    u32 only = 0;
    struct config *config = map_lookup(MAP(CONFIG), &only);
    struct scratch *scratch = map_lookup(MAP(SCRATCH), &only);
    if (!config || !scratch)
        return ALLOW;
    u8 answer = config->reject ? take_note(skb) : 0;
    struct packet *packet = &scratch->packet;
    struct flow *flow = &packet->flow;
    __builtin_memset(packet, 0, sizeof(*packet));
    packet->family = family_of(state);
    packet->length = *(u32 *)(skb + PLACEHOLDER(OFFSET_SK_BUFF_LEN));

    struct reader reader;
    dynptr_from_skb(skb, 0, &reader.bytes);
    int unreadable = network_layer(&reader, &packet->at, packet->family, flow);
    struct endpoint *from = endpoint_at(ifindex_of(state, PLACEHOLDER(OFFSET_NF_HOOK_STATE_IN)), packet->family, &flow->source);
    struct endpoint *to = 0;
    u32 out = local ? 0 : ifindex_of(state, PLACEHOLDER(OFFSET_NF_HOOK_STATE_OUT));
    if (!local)
        to = endpoint_at(out, packet->family, &flow->destination);
    if (!from && !to)
        return ALLOW;
    flow->sender = from ? from->id : 0;
    flow->receiver = to ? to->id : 0;

    if (unreadable || transport_layer(&reader, packet)) {
        if (!(from && from->egress) && !(to && to->ingress))
            return ALLOW;
        tell(config, packet, 0, from && from->egress ? EGRESS : INGRESS, EVENT_UNREADABLE);
        return DENY;
    }
    if (packet->neighbour)
        return ALLOW;                            /* neighbour discovery */
    if (answer && (packet->resets || packet->error))
        return ALLOW;
    if (packet->error && is_related(&reader, scratch))
        return ALLOW;
    if (decide(config, scratch, from, to))
        return ALLOW;
    return config->reject ? refuse(state, skb, config, scratch, out) : DENY;
}

/* POST_ROUTING: what the node itself sends is always allowed, and so are the answers, which LOCAL_IN must recognise.
 * Runs in processes, too, where another may cut in: nothing but the stack here. */
int polyplane_origin(struct netfilter *context)
{
    u64 state = context->state;
    if (ifindex_of(state, PLACEHOLDER(OFFSET_NF_HOOK_STATE_IN)))
        return ALLOW;                            /* forwarded: `polyplane_filter` has decided */
    struct packet packet = {};
    struct flow *flow = &packet.flow, back;
    packet.family = family_of(state);
    struct reader reader;
    dynptr_from_skb(context->skb, 0, &reader.bytes);
    if (network_layer(&reader, &packet.at, packet.family, flow))
        return ALLOW;
    struct endpoint *to = endpoint_at(ifindex_of(state, PLACEHOLDER(OFFSET_NF_HOOK_STATE_OUT)), packet.family, &flow->destination);
    if (!to || transport_layer(&reader, &packet) || !packet.tracked)
        return ALLOW;
    flow->receiver = to->id;
    if (!packet.opens) {
        if (flow->protocol == TCP || flow->protocol == ICMP || flow->protocol == ICMPV6)
            return ALLOW;                        /* an answer, or in the middle of what the pod has opened */
        turn_round(&back, flow);
        if (connection_of(&back, time_now()))
            return ALLOW;
    }
    struct connection fresh = { .seen = time_now(), .standing = OF_NODE };
    map_update(MAP(CONNECTIONS), flow, &fresh, 0);
    return ALLOW;
}
