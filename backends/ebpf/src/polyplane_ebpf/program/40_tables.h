/* Classify, then decide: address → class, (stack, class, protocol, port) → verdict. */

INLINE struct endpoint *endpoint_at(u32 ifindex, u8 family, const struct address *address)
{
    struct endpoint *endpoint = map_lookup(MAP(INTERFACES), &ifindex);
    if (endpoint)
        return endpoint;
    struct owner_key key = { .family = family, .address = *address };
    return map_lookup(MAP(OWNERS), &key);
}

INLINE int is_node(u8 family, const struct address *address)
{
    struct owner_key key = { .family = family, .address = *address };
    return map_lookup(MAP(NODE), &key) != 0;
}

INLINE struct policy *policy_of(const struct scratch *scratch, u64 stack, u32 view, u8 side, const struct address *peer, u16 port)
{
    u8 family = scratch->packet.family;
    u32 scope = side | family << 8 | view << 16;
    u64 fallback = family == 6, class = fallback, *found;
    struct host_key host = { .scope = scope, .address = *peer };
    found = map_lookup(MAP(HOSTS), &host);
    if (!found) {
        struct prefix_key prefix = { .length = 160, .scope = scope, .address = *peer };
        found = map_lookup(MAP(PREFIXES), &prefix);
    }
    if (found)
        class = *found;
    struct policy_key key = { .length = 160, .protocol = scratch->packet.flow.protocol, .port = port };
    key.stack[0] = stack;
    key.stack[1] = stack >> 32;
    key.class[0] = class;
    key.class[1] = class >> 32;
    struct policy *policy = map_lookup(MAP(POLICY), &key);
    if (!policy && class != fallback) {
        key.class[0] = fallback;
        key.class[1] = 0;
        policy = map_lookup(MAP(POLICY), &key);
    }
    return policy;
}

/* Looks the decision up and notes it; what is not there is closed, for tables may be half written. */
INLINE void ask(
    const struct config *config, struct scratch *scratch, u64 stack, u32 view, u32 side, const struct address *peer, u16 port, u16 number)
{
    u32 rule = 0;
    u8 verdict = DENY;
    struct policy *policy = policy_of(scratch, stack, view, side, peer, port);
    if (policy && policy->path) {
        struct path_key key = { .length = 96, .number = number };
        key.path[0] = policy->path;
        key.path[1] = policy->path >> 32;
        struct path_end *end = map_lookup(MAP(PATHS), &key);
        if (end) {
            rule = end->rule;
            verdict = end->verdict;
            KEEP_LOOP
            for (u32 at = 0; at < LOGS && at < end->logs; at++) {
                u32 log = end->log[at];
                count(log, scratch->packet.length);
                tell(config, &scratch->packet, log, side, EVENT_LOG);
            }
        }
    } else if (policy) {
        rule = policy->rule;
        verdict = policy->verdict;
    }
    if (verdict == DENY) {
        scratch->denied = 1;
        scratch->denied_by = rule;
        scratch->denied_side = side;
    } else {
        scratch->rule[side & 1] = rule;
    }
}
