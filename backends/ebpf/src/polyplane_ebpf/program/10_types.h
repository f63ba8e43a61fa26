/* Words shared by all parts of the program. Keys and values are packed and read by encode.py; numbers in capitals come from maps.py
 * as definitions on the compiler's command line. */

#define INLINE static __attribute__((always_inline)) inline
#define KEEP_LOOP _Pragma("clang loop unroll(disable)")
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

/* The loader replaces these 64-bit constants: a map's file descriptor, or the offset of a kernel structure's field. */
#define PLACEHOLDER(number) ({ u64 value_; asm("%0 = " TEXT(number) " ll" : "=r"(value_)); value_; })
#define MAP(name) ((void *)PLACEHOLDER(MAP_##name))

/* Helpers by their number in the kernel's interface. */
static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const map_delete)(void *map, const void *key) = (void *)3;
static void *(*const ringbuf_reserve)(void *ringbuf, u64 size, u64 flags) = (void *)131;
static void (*const ringbuf_submit)(void *data, u64 flags) = (void *)132;
static u64 (*const time_now)(void) = (void *)5;
static long (*const read_kernel)(void *to, u32 length, const void *from) = (void *)113;

#define TCP 6
#define UDP 17
#define SCTP 132
#define ICMP 1
#define ICMPV6 58

#define SECOND 1000000000ULL

enum side { EGRESS = 0, INGRESS = 1 };
enum verdict { DENY = 0, ALLOW = 1 };

struct address { u32 word[4]; };                 /* IPv4 as ::ffff:a.b.c.d */

/* One endpoint; stack 0: not subject in that direction. Replaced as a whole, which makes a change atomic. */
struct endpoint {
    u64 id;
    u64 egress;
    u64 ingress;
    u64 self_egress;
    u64 self_ingress;
    u32 view;                                    /* which copy of the address tables its stacks belong to */
    u32 zero;
};

struct owner_key { u32 family; struct address address; };
struct host_key { u32 scope; struct address address; };
struct prefix_key { u32 length; u32 scope; struct address address; };
struct policy_key { u32 length; u32 stack[2]; u32 class[2]; u8 protocol; u8 zero; u16 port; };
struct policy { u64 path; u32 rule; u8 verdict; u8 zero[3]; };
/* Where protocol and destination port do not settle it: number is the source port, or ICMP type << 8 | code; network order. */
struct path_key { u32 length; u32 path[2]; u16 number; u16 zero; };
struct path_end { u32 rule; u8 verdict; u8 logs; u16 zero; u32 log[LOGS]; };

struct config {
    u64 generation;                              /* odd while tables change */
    u32 keep;                                    /* established connections stay open whatever changes */
    u32 reject;
    u32 events;                                  /* events per second and processor */
    u32 zero;
};

/* One connection, in the direction in which it was opened. Endpoint ids are 0 for what is no endpoint of this node. */
struct flow {
    struct address source;
    struct address destination;
    u64 sender;
    u64 receiver;
    u16 source_port;                             /* network order; for echo its identifier */
    u16 port;
    u8 protocol;
    u8 zero[3];
};

enum standing { APPROVED = 1, DENIED = 2, OF_NODE = 3 };

struct connection {
    u64 generation;                              /* of the tables that `standing` was found with */
    u64 seen;                                    /* nanoseconds since start */
    u32 egress_rule;
    u32 ingress_rule;
    u8 standing;
    u8 closing;
    u8 zero[6];
};

enum note_kind { NOTE_REFUSED = 1, NOTE_ANSWER = 2 };

struct note { u64 time; u64 kind; };
/* A denied packet that could not be answered on the spot, by its addresses and ports as it came in. */
struct refusal { u64 time; u64 generation; u32 rule; u32 zero; };
struct counter { u64 packets; u64 bytes; };
struct allowance { u64 since; u32 used; u32 lost; };

struct event {
    u64 time;
    u64 sender;
    u64 receiver;
    struct address source;
    struct address destination;
    u32 rule;
    u16 source_port;
    u16 port;
    u16 icmp;
    u8 protocol;
    u8 family;
    u8 side;
    u8 kind;
    u16 zero;
};

/* What is known about the packet in hand. */
struct packet {
    struct flow flow;
    u32 length;
    u32 at;                                      /* where the payload begins */
    u16 icmp;                                    /* type and code, network order */
    u16 icmp_opened;                             /* of the request, if this is the answer to one */
    u8 family;
    u8 opens;                                    /* certainly the first of a connection */
    u8 answers;                                  /* may be the answer in a connection */
    u8 closes;
    u8 tracked;                                  /* belongs to something that has two directions */
    u8 error;                                    /* reports about another packet */
    u8 neighbour;                                /* neighbour discovery */
    u8 resets;
};

/* What does not fit on the stack (512 bytes). One for each processor: the hooks that use it run in softirqs, which do not nest. */
struct scratch {
    struct packet packet;
    struct flow back;
    struct flow quoted;
    /* Kept here and not in registers: what the verifier does not know it need not follow through every combination. */
    u64 stack[4];                                /* whom to ask, by turn; 0: nobody */
    u32 view[4];
    u32 quoted_at;
    u32 ask_for;                                 /* bit 0: as the first of a connection, bit 1: as the answer in one */
    u32 rule[2];                                 /* that allowed, by side */
    u32 denied_by;
    u8 denied;
    u8 denied_side;
    u8 zero[2];
};

/* What maps.py says about sizes is what is declared here. */
#define SIZES(map, key, value) _Static_assert(sizeof(key) == KEY_##map && sizeof(value) == VALUE_##map, "sizes of " #map)
SIZES(INTERFACES, u32, struct endpoint);
SIZES(OWNERS, struct owner_key, struct endpoint);
SIZES(HOSTS, struct host_key, u64);
SIZES(PREFIXES, struct prefix_key, u64);
SIZES(POLICY, struct policy_key, struct policy);
SIZES(PATHS, struct path_key, struct path_end);
SIZES(NODE, struct owner_key, u32);
SIZES(CONFIG, u32, struct config);
SIZES(CONNECTIONS, struct flow, struct connection);
SIZES(COUNTERS, u32, struct counter);
SIZES(ALLOWANCE, u32, struct allowance);
SIZES(SCRATCH, u32, struct scratch);
SIZES(NOTES, u64, struct note);
SIZES(ANSWERING, u32, u32);
SIZES(REFUSALS, struct flow, struct refusal);
