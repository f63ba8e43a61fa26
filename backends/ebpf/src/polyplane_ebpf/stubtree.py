"""A kernel source tree that has just what bcc insists on: nodes rarely have headers, and the program needs none of their content.

bcc brings its own ``bpf.h`` and reads these files around it (tried with bcc 0.26 and LLVM 14).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

_TYPES: Final = """\
#pragma once
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef s8 __s8;
typedef s16 __s16;
typedef s32 __s32;
typedef s64 __s64;
typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef u16 __le16, __be16, __sum16;
typedef u32 __le32, __be32, __wsum;
typedef u64 __le64, __be64;
typedef unsigned long size_t, uintptr_t;
typedef long ssize_t;
typedef _Bool bool;
enum { false = 0, true = 1 };
#define NULL ((void *)0)
#define __bitwise
#define __aligned_u64 u64 __attribute__((aligned(8)))
#define __always_inline inline __attribute__((always_inline))
"""

_BPF_COMMON: Final = """\
#pragma once
#define BPF_CLASS(code) ((code) & 7)
enum { BPF_LD, BPF_LDX, BPF_ST, BPF_STX, BPF_ALU, BPF_JMP, BPF_RET, BPF_MISC };
"""

_FILES: Final[Mapping[str, str]] = {
    "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "include/linux/types.h": _TYPES,
    "include/linux/bpf_common.h": _BPF_COMMON,
    "include/linux/version.h": "#define KERNEL_VERSION(a, b, c) ((a) << 16 | (b) << 8 | (c))\n#define LINUX_VERSION_CODE KERNEL_VERSION(6, 6, 0)\n",
    "include/linux/log2.h": "#define roundup_pow_of_two(number) (number)\n",
    "include/uapi/linux/bpf.h": "",
    "include/uapi/linux/if_packet.h": "",
    "include/asm/page.h": "#define PAGE_SIZE 4096\n",
}


def write_tree(directory: Path) -> None:
    """Write the tree below a directory."""
    for name, content in _FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="ascii")
