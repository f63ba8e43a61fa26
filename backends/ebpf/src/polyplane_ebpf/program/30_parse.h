/* From bytes to `struct packet`. LOAD(where, into, length) is the hook's way to read; it returns 0 when the bytes are there. */

#define SWAP16(x) ((u16)__builtin_bswap16(x))

INLINE int load_ports(struct reader *reader, u32 at, struct flow *flow)
{
    u16 ports[2];
    if (LOAD(reader, at, ports, 4))
        return -1;
    flow->source_port = ports[0];
    flow->port = ports[1];
    return 0;
}

INLINE int has_ports(u8 protocol) { return protocol == TCP || protocol == UDP || protocol == SCTP; }

/* Walks over extension headers (RFC 8200) to where the payload begins; `at` and `next` are in memory so that the verifier forgets
 * them from one header to the next. A piece of a packet cannot be read: what comes here is whole. */
INLINE int skip_extensions(struct reader *reader, u32 *at, u8 *next)
{
    KEEP_LOOP
    for (int i = 0; i < 8; i++) {
        u8 type = *next, header[4];
        if (type != 0 && type != 43 && type != 44 && type != 51 && type != 60 && type != 135 && type != 139 && type != 140)
            return 0;
        if (LOAD(reader, *at, header, 4))
            return -1;
        u32 length = (header[1] + 1) * 8;
        if (type == 44) {
            if ((header[2] << 8 | header[3]) & 0xfff9)
                return -1;
            length = 8;
        } else if (type == 51) {
            length = (header[1] + 2) * 4;
        }
        *at += length;
        *next = header[0];
    }
    return -1;
}

/* Addresses and protocol; moves `at` from the IP header to the payload. Returns 0, or -1 for what cannot be read,
 * with the addresses, if they are there: whose it is decides what happens to it. */
INLINE int network_layer(struct reader *reader, u32 *at, u8 family, struct flow *flow)
{
    u32 start = *at;
    if (family == 4) {
        u8 header[20];
        if (LOAD(reader, start, header, 20))
            return -1;
        flow->source.word[0] = flow->source.word[1] = flow->destination.word[0] = flow->destination.word[1] = 0;
        flow->source.word[2] = flow->destination.word[2] = V4_MAPPED;
        __builtin_memcpy(&flow->source.word[3], header + 12, 4);
        __builtin_memcpy(&flow->destination.word[3], header + 16, 4);
        flow->protocol = header[9];
        *at = start + (header[0] & 15) * 4;
        return header[0] >> 4 != 4 || (header[0] & 15) < 5 || (header[6] << 8 | header[7]) & 0x3fff ? -1 : 0;
    }
    u8 first[8];
    if (LOAD(reader, start, first, 8) || LOAD(reader, start + 8, &flow->source, 16) ||
        LOAD(reader, start + 24, &flow->destination, 16))
        return -1;
    flow->protocol = first[6];
    *at = start + 40;
    if (first[0] >> 4 != 6)
        return -1;
    return skip_extensions(reader, at, &flow->protocol);
}

/* Ports, flags, ICMP types. */
INLINE int transport_layer(struct reader *reader, struct packet *packet)
{
    u32 at = packet->at;
    struct flow *flow = &packet->flow;
    u8 protocol = flow->protocol;
    packet->answers = packet->tracked = 1;
    if (has_ports(protocol)) {
        if (load_ports(reader, at, flow))
            return -1;
        if (protocol == TCP) {
            u8 flags;
            if (LOAD(reader, at + 13, &flags, 1))
                return -1;
            packet->opens = (flags & 0x17) == 0x02;  /* SYN without FIN, RST and ACK */
            packet->answers = !packet->opens;
            packet->closes = !!(flags & 5);
            packet->resets = !!(flags & 4);
        }
        return 0;
    }
    if (protocol == ICMP || protocol == ICMPV6) {
        u8 header[4];
        if (LOAD(reader, at, header, 4))
            return -1;
        u8 type = header[0];
        __builtin_memcpy(&packet->icmp, header, 2);
        packet->icmp_opened = packet->icmp;
        packet->neighbour = protocol == ICMPV6 && type >= 133 && type <= 137;
        u8 request = protocol == ICMP ? 8 : 128, answer = protocol == ICMP ? 0 : 129;
        packet->opens = type == request;
        packet->answers = type == answer;
        packet->tracked = packet->opens || packet->answers;
        if (packet->answers)
            packet->icmp_opened = SWAP16(request << 8);
        packet->error = packet->family == 4 ? protocol == ICMP && (type == 3 || type == 11 || type == 12)
                                            : protocol == ICMPV6 && type >= 1 && type <= 4;
        if (packet->tracked) {
            if (LOAD(reader, at + 4, &flow->source_port, 2))
                return -1;
            flow->port = flow->source_port;
        }
    }
    return 0;
}
