/* How a netfilter program reads a packet: a view that covers its fragments in memory, too. */

struct reader { struct { u64 opaque[2]; } bytes __attribute__((aligned(8))); };

static int (*const dynptr_from_skb)(u64 skb, u64 flags, void *dynptr) = (void *)KFUNC_DYNPTR_FROM_SKB;
static long (*const dynptr_read)(void *to, u32 length, const void *dynptr, u32 offset, u64 flags) = (void *)201;

#define LOAD(reader, at, into, length) dynptr_read(into, length, &(reader)->bytes, at, 0)
