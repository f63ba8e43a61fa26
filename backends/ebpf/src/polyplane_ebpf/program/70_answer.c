/* Traffic control: turns packets that `polyplane_filter` refuses into the answer that their destination would give. Where they would
 * leave, if they get so far: there the answer comes in, and translation of addresses is undone for it as for any other. Else the next
 * one of their kind, where it comes in. */

#define NEXT (-1)                                /* let other programs of this hook decide */
#define DROP 2
#define MAC 14

static void *(*const kernel_context)(void *context) = (void *)KFUNC_CAST_TO_KERN_CTX;
static long (*const skb_load)(const void *skb, u32 at, void *to, u32 length) = (void *)26;
static long (*const skb_store)(void *skb, u32 at, const void *from, u32 length, u64 flags) = (void *)9;
static long (*const skb_resize)(void *skb, u32 length, u64 flags) = (void *)38;
static long (*const redirect)(u32 ifindex, u64 flags) = (void *)23;
static s64 (*const sum)(void *from, u32 from_size, void *to, u32 to_size, u32 seed) = (void *)28;

INLINE u16 fold(s64 value)
{
    u64 rest = (u32)value;
    rest = (rest & 0xffff) + (rest >> 16);
    rest = (rest & 0xffff) + (rest >> 16);
    return ~rest;
}

INLINE void put16(u8 *to, u16 value) { __builtin_memcpy(to, &value, 2); }
INLINE void put32(u8 *to, u32 value) { __builtin_memcpy(to, &value, 4); }

/* Ethernet and IP header of the answer, in `out`, to a packet whose headers are in `in`. */
INLINE void head(u8 *out, const u8 *in, u8 family, u8 protocol, u16 payload)
{
    __builtin_memcpy(out, in + 6, 6);
    __builtin_memcpy(out + 6, in, 6);
    __builtin_memcpy(out + 12, in + 12, 2);
    if (family == 4) {
        out[MAC] = 0x45;
        put16(out + MAC + 2, SWAP16(20 + payload));
        out[MAC + 8] = 64;
        out[MAC + 9] = protocol;
        __builtin_memcpy(out + MAC + 12, in + MAC + 16, 4);
        __builtin_memcpy(out + MAC + 16, in + MAC + 12, 4);
        put16(out + MAC + 10, fold(sum(0, 0, out + MAC, 20, 0)));
    } else {
        out[MAC] = 0x60;
        put16(out + MAC + 4, SWAP16(payload));
        out[MAC + 6] = protocol;
        out[MAC + 7] = 64;
        __builtin_memcpy(out + MAC + 8, in + MAC + 24, 16);
        __builtin_memcpy(out + MAC + 24, in + MAC + 8, 16);
    }
}

/* A reset as RFC 9293 has it: with the sequence number the other side expects, or acknowledging what it sent. */
INLINE int reset(struct __sk_buff *skb, const u8 *in, u8 family, u32 start, u32 length)
{
    u8 tcp[20], out[MAC + 40 + 20] = {};
    if (skb_load(skb, start, tcp, 20))
        return -1;
    u8 *answer = out + start, acknowledges = !!(tcp[13] & 16);
    u32 sequence, number;
    __builtin_memcpy(&sequence, tcp + 4, 4);
    __builtin_memcpy(&number, tcp + 8, 4);
    head(out, in, family, TCP, 20);
    __builtin_memcpy(answer, tcp + 2, 2);
    __builtin_memcpy(answer + 2, tcp, 2);
    if (acknowledges) {
        put32(answer + 4, number);
        answer[13] = 4;
    } else {
        u32 sent = length - start - (tcp[12] >> 4) * 4 + !!(tcp[13] & 2) + !!(tcp[13] & 1);
        put32(answer + 8, __builtin_bswap32(__builtin_bswap32(sequence) + sent));
        answer[13] = 4 | 16;
    }
    answer[12] = 5 << 4;
    if (family == 4)
        put16(answer + 16, fold(sum(0, 0, out + MAC + 12, 8 + 20, SWAP16(TCP + 20))));
    else
        put16(answer + 16, fold(sum(0, 0, out + MAC + 8, 32 + 20, SWAP16(TCP + 20))));
    return skb_resize(skb, start + 20, 0) || skb_store(skb, 0, out, start + 20, 0);
}

/* Destination unreachable, communication administratively prohibited (RFC 1812, RFC 4443), with the packet's IP header and the 8 bytes
 * that follow it. */
INLINE int unreachable(struct __sk_buff *skb, const u8 *in, u8 family, u32 start)
{
    u8 out[MAC + 40 + 8 + 48] = {};
    u8 *answer = out + start;
    u32 quoted = start - MAC + 8, size = 8 + quoted;
    head(out, in, family, family == 4 ? ICMP : ICMPV6, size);
    answer[0] = family == 4 ? 3 : 1;
    answer[1] = family == 4 ? 13 : 1;
    if (skb_load(skb, MAC, answer + 8, quoted))
        return -1;
    if (family == 4)
        put16(answer + 2, fold(sum(0, 0, answer, size, 0)));
    else
        put16(answer + 2, fold(sum(0, 0, out + MAC + 8, 32 + size, SWAP16(ICMPV6 + size))));
    return skb_resize(skb, start + size, 0) || skb_store(skb, 0, out, start + size, 0);
}

/* Returns 0 when the packet has become its answer. */
INLINE int turn(struct __sk_buff *skb, u8 *in)
{
    u32 length = skb->len;
    if (skb->protocol == SWAP16(0x0800)) {
        if (skb_load(skb, 0, in, MAC + 20) || in[MAC] != 0x45)
            return -1;
        return in[MAC + 9] == TCP ? reset(skb, in, 4, MAC + 20, length) : unreachable(skb, in, 4, MAC + 20);
    }
    if (skb_load(skb, 0, in, MAC + 40))
        return -1;
    return in[MAC + 6] == TCP ? reset(skb, in, 6, MAC + 40, length) : unreachable(skb, in, 6, MAC + 40);
}

/* Where packets leave. */
int polyplane_answer(struct __sk_buff *skb)
{
    u64 place = (u64)kernel_context(skb);
    struct note *note = map_lookup(MAP(NOTES), &place);
    if (!note)
        return NEXT;
    u8 refused = note->kind == NOTE_REFUSED && time_now() - note->time < 5 * SECOND;
    map_delete(MAP(NOTES), &place);
    if (!refused || !skb->ingress_ifindex)
        return NEXT;                             /* an older packet's, of which nobody heard again */
    u8 in[MAC + 40];
    if (turn(skb, in))
        return DROP;
    struct note answer = { .time = time_now(), .kind = NOTE_ANSWER };
    if (map_update(MAP(NOTES), &place, &answer, 0))
        return DROP;
    return redirect(skb->ifindex, 1);            /* 1: as if it came in there */
}

/* Where packets come in. Only whole ones without options: others are decided about, and not answered. */
int polyplane_refuse(struct __sk_buff *skb)
{
    u8 in[MAC + 40], flags;
    struct flow flow = {};
    u16 ports[2];
    u32 start, only = 0;
    if (skb->vlan_present)
        return NEXT;
    if (skb->protocol == SWAP16(0x0800)) {
        if (skb_load(skb, 0, in, MAC + 20) || in[MAC] != 0x45 || (in[MAC + 6] << 8 | in[MAC + 7]) & 0x3fff)
            return NEXT;
        start = MAC + 20;
        flow.protocol = in[MAC + 9];
        flow.source.word[2] = flow.destination.word[2] = V4_MAPPED;
        __builtin_memcpy(&flow.source.word[3], in + MAC + 12, 4);
        __builtin_memcpy(&flow.destination.word[3], in + MAC + 16, 4);
    } else if (skb->protocol == SWAP16(0x86dd)) {
        if (skb_load(skb, 0, in, MAC + 40))
            return NEXT;
        start = MAC + 40;
        flow.protocol = in[MAC + 6];
        __builtin_memcpy(&flow.source, in + MAC + 8, 16);
        __builtin_memcpy(&flow.destination, in + MAC + 24, 16);
    } else {
        return NEXT;
    }
    if (!has_ports(flow.protocol) || skb_load(skb, start, ports, 4))
        return NEXT;
    flow.source_port = ports[0];
    flow.port = ports[1];
    struct refusal *refusal = map_lookup(MAP(REFUSALS), &flow);
    struct config *config = map_lookup(MAP(CONFIG), &only);
    if (!refusal || !config)
        return NEXT;
    u64 generation = *(volatile u64 *)&config->generation;
    if (!config->reject || refusal->generation != generation || generation & 1 || time_now() - refusal->time > 5 * SECOND)
        return NEXT;                             /* policy has changed, or it is long ago: decide anew */
    if (flow.protocol == TCP && (skb_load(skb, start + 13, &flags, 1) || flags & 4))
        return NEXT;
    u64 place = (u64)kernel_context(skb);
    map_delete(MAP(NOTES), &place);              /* of an older packet at this place, which `polyplane_answer` must not find */
    count(refusal->rule, skb->len - MAC);
    return turn(skb, in) ? DROP : redirect(skb->ifindex, 0);
}
