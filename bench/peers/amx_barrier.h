// Forced into every file of llama.cpp's build (gcc -include). GCC's AMX intrinsics do not tell the compiler that a tile
// load reads memory, and that a tile configuration reads more than its first eight bytes. So gcc 12 moves the stores that
// prepare them behind them or drops them, and llama.cpp crashes in its first product of several tokens. A barrier before
// each keeps the order. It is no instruction.
#pragma once
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

#define SEAMOUNT_READS_MEMORY __asm__ volatile("" ::: "memory")

#undef _tile_loadd
#define _tile_loadd(tile, base, stride)            \
    do {                                           \
        SEAMOUNT_READS_MEMORY;                     \
        _tile_loadd_internal(tile, base, stride);  \
    } while (0)

#undef _tile_stream_loadd
#define _tile_stream_loadd(tile, base, stride)            \
    do {                                                  \
        SEAMOUNT_READS_MEMORY;                            \
        _tile_stream_loadd_internal(tile, base, stride);  \
    } while (0)

#define _tile_loadconfig(config)      \
    do {                              \
        SEAMOUNT_READS_MEMORY;        \
        (_tile_loadconfig)(config);   \
    } while (0)
#endif
