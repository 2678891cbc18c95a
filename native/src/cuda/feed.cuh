/* Products of 16-bit operands whose rows can be copied 16 bytes at a time from end to end: the sums of tile.cuh in the same order, with
   addresses that only move on and fragments that are fetched while the tensor cores work. */
#pragma once

#include "tile.cuh"

namespace l4j {

/* The copies that one thread makes of every tile of an operand. ALONG: the contraction runs along a tile's rows, otherwise down them.
   GATHER: row r of the contraction is row gather[r] of the data. */
template <class T, int ROWS, int COLS, int THREADS, bool ALONG, bool GATHER = false> class Feed {
    static constexpr int VEC = 16 / sizeof(T), CHUNKS = COLS / VEC; /* of a row */
    static constexpr int APART = THREADS / CHUNKS;                  /* rows between a thread's copies */
    static constexpr int COUNT = ROWS / APART, BYTES = sizeof(T);
    static_assert(THREADS % CHUNKS == 0 && ROWS % APART == 0 && COUNT <= 32, "every thread makes as many copies");
    static_assert(APART % 8 == 0 || (APART == 4 && CHUNKS >= 8),
                  "a thread's copies lie at one swizzled chunk, or in turns at two");

public:
    /* [first, end) of the operand's dimension that is no contraction, [k0, k1) of the one that is: multiples of 8 along rows. */
    __device__ Feed(const Operand &o, int64_t first, int64_t end, int64_t k0, int64_t k1) {
        int r = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS;
        int64_t row = (ALONG ? first : k0) + r, col = (ALONG ? k0 : first) + c * VEC;
        place_ = static_cast<uint32_t>(r * COLS + swizzle<CHUNKS>(r, c) * VEC) * BYTES;
        from_ = o.data + ((GATHER ? 0 : row * o.rs) + col) * BYTES;
        pitch_ = (GATHER ? 1 : APART) * o.rs * BYTES;
        gather_ = GATHER ? o.gather + row : nullptr;
        advance_ = ALONG ? COLS * BYTES : ROWS * o.rs * BYTES;
        rows_ = 0;
        if constexpr (ALONG) {
            left_ = static_cast<int32_t>(k1 - col);
#pragma unroll
            for (int j = 0; j < COUNT; j++) rows_ |= (row + j * APART < end ? 1u : 0u) << j;
        } else {
            left_ = col < end ? static_cast<int32_t>(k1 - row) : 0;
        }
    }
    /* Copies the next tile to an address in shared memory. */
    __device__ void copy(uint32_t tile) {
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            bool there = ALONG ? left_ > 0 && (rows_ >> j & 1) : left_ > j * APART;
            int64_t row = j;
            if constexpr (GATHER) row = there ? gather_[j * APART] : 0;
            uint32_t place = APART == 4 && j % 2 ? place_ ^ 64 : place_; /* the swizzle of a row four further down */
            copy16(tile + place + j * APART * COLS * BYTES, from_ + row * pitch_, there);
        }
        if constexpr (GATHER) {
            gather_ += ROWS;
        } else {
            from_ += advance_;
        }
        left_ -= ALONG ? COLS : ROWS;
    }

private:
    const char *from_;
    const int32_t *gather_;
    int64_t pitch_, advance_;
    uint32_t place_, rows_; /* rows_: which of the copies have a row */
    int32_t left_;          /* of the contraction, from the first copy on */
};

/* acc += A · B over the contraction [k0, k1); A has m rows (columns if AT), B n. `mask` may change A's fragments before they are used:
   part g of a step that begins at k of the contraction. */
template <bool AT, bool BT, bool GATHER = false, class Acc, class Mask = NoMask>
__device__ void multiply_fast(Acc &acc, typename Acc::Value *shared, const Operand &a, int64_t m0, int64_t m,
                              const Operand &b, int64_t n0, int64_t n, int64_t k0, int64_t k1, Mask mask = Mask()) {
    using T = typename Acc::Value;
    constexpr int BM = Acc::BM, BN = Acc::BN, BK = Acc::BK, STAGES = Acc::STAGES, PARTS = Acc::PARTS;
    static_assert(PARTS % 2 == 0 && (AT && BT || !GATHER),
                  "two sets of fragments take turns; a contraction is gathered");
    Feed<T, AT ? BK : BM, AT ? BM : BK, Acc::THREADS, !AT, GATHER> feed_a(a, m0, m, k0, k1);
    Feed<T, BT ? BK : BN, BT ? BN : BK, Acc::THREADS, !BT, GATHER> feed_b(b, n0, n, k0, k1);
    int steps = static_cast<int>((k1 - k0 + BK - 1) / BK);
    uint32_t base = shared_address(shared);
    auto load = [&](int stage) {
        uint32_t tile = base + static_cast<uint32_t>(stage * Acc::kStage * sizeof(T));
        feed_a.copy(tile);
        feed_b.copy(tile + static_cast<uint32_t>(BM * BK * sizeof(T)));
    };
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < steps) load(i);
        commit();
    }
    wait<STAGES - 2>();
    __syncthreads();
    typename Acc::Fragments f[2];
    const T *tile = shared;
    Acc::template fetch<AT, BT>(f[0], tile, tile + BM * BK, Acc::place(0));
    int from = 0, into = STAGES - 1;
    for (int i = 0; i < steps; i++) {
#pragma unroll
        for (int g = 0; g < PARTS; g++) {
            if (g == PARTS - 1) { /* the rest of this step is in registers */
                from = from + 1 == STAGES ? 0 : from + 1;
                tile = shared + from * Acc::kStage;
                wait<STAGES - 2>();
                __syncthreads();
            }
            Acc::template fetch<AT, BT>(f[(g + 1) % 2], tile, tile + BM * BK, Acc::place((g + 1) % PARTS));
            if (g == 0) { /* into the stage that the step before has left */
                if (i + STAGES - 1 < steps) load(into);
                commit();
                into = into + 1 == STAGES ? 0 : into + 1;
            }
            if constexpr (Mask::kActive) mask.fragments(f[g % 2], k0 + static_cast<int64_t>(i) * BK + Acc::place(g), g);
            acc.accumulate(f[g % 2]);
        }
    }
    wait<0>();
    __syncthreads();
}

} // namespace l4j
