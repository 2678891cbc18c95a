/*
 * codes_rows.cuh for formats whose units have their codes in 16 or 32 bytes of their own. A block takes a part's codes, scales and
 * activations through shared memory, so that no warp waits for memory; a fragment of activations serves four of the weight.
 *   y    a block has 256 rows of the weight, a warp 64 of them, a step is 64 columns. A lane decodes octet t of a unit of eight rows
 *   dx   a block has 256 columns of the weight, a warp 64 of them, a step is 64 rows. A lane decodes an octet of rows 4t to 4t + 3 of
 *        16, and packs values of two rows
 */
#pragma once

#include "codes_rows.cuh"

namespace l4j {

constexpr int kStagedThreads = 128, kStagedStep = 64, kStagedOutputs = 256, kStagedUnits = 512; /* units of a step */

/* A block's way through the weight, and where things lie in shared memory. */
template <class Format, bool BACK> struct Staged {
    using Scale = typename Decoder<Format>::Scale;
    static constexpr int ROWS = BACK ? 64 : 256, UNITS = BACK ? 8 : 2; /* of the weight in a step */
    static constexpr int BYTES = Format::kUnitBytes, CHUNKS = UNITS * BYTES / 16, EACH = kStagedUnits / kStagedThreads;
    static constexpr int kCodes = kStagedUnits * BYTES, kScales = UNITS * (ROWS + 16); /* bytes; entries */

    /* The first unit of a step: its projection, row and place in the row. */
    int g;
    int64_t row;
    int unit;

    __device__ Staged(const LoraParams &p, int z, int64_t step) {
        if constexpr (BACK) {
            RowPlace at(p, step);
            g = at.g;
            row = at.n;
            unit = static_cast<int>(blockIdx.x) * UNITS;
        } else {
            g = z;
            row = static_cast<int64_t>(blockIdx.x) * ROWS;
            unit = static_cast<int>(step) * UNITS;
        }
    }
    __device__ void move(const LoraParams &p) {
        if constexpr (BACK) {
            RowPlace at(g, row);
            at.move(p, kStagedStep);
            g = at.g;
            row = at.n;
        } else {
            unit += UNITS;
        }
    }
    /* Unit u of row r of the step, or the nearest that there is: activations are zero, or sums unused, where there is none. */
    __device__ void find(const LoraParams &p, int r, int u, int64_t &n, int &at) const {
        int64_t rows = p.projection[g].n;
        int units = static_cast<int>(p.K / kUnit);
        n = row + r < rows ? row + r : rows - 1;
        at = unit + u < units ? unit + u : units - 1;
    }

    /* Places of 16-byte chunk c of row r of the codes, and of the activations; lanes of an access lie in different banks. */
    __device__ static int code_place(int r, int c) {
        return BACK ? c ^ (r >> 2 & 3) << 1 : BYTES == 16 ? c ^ (r >> 2 & 1) : c ^ (r >> 1 & 1) << 1;
    }
    __device__ static int place(int r, int c) { return BACK ? place_of_rows(r, c) : c ^ (r & 1) << 2; }
    __device__ static int scale_place(int r, int u) { return u * (ROWS + 16) + r; }
    static size_t shared(size_t rows) {
        return Decoder<Format>::kShared + kRing * (kCodes + rows * kStagedStep * 2) + 2 * kScales * sizeof(Scale);
    }
};

template <class Format, bool BACK>
__global__ void __launch_bounds__(kStagedThreads, 2)
    codes_staged_kernel(const __grid_constant__ LoraParams p, const __grid_constant__ CodedSet set,
                        const __grid_constant__ Parts parts) {
    using S = Staged<Format, BACK>;
    using Scale = typename S::Scale;
    extern __shared__ uint4 raw[];
    int z = BACK ? 0 : blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
    int64_t across = BACK ? p.K : p.projection[z].n, out0 = static_cast<int64_t>(blockIdx.x) * kStagedOutputs;
    int part = static_cast<int>(blockIdx.y);
    if (part >= parts.count[z] || out0 >= across) return;
    int64_t steps = BACK ? 0 : (p.K + kStagedStep - 1) / kStagedStep;
    for (int g = 0; BACK && g < p.projections; g++) steps += RowPlace::steps_of(p, g);
    int first = static_cast<int>(steps * part / parts.count[z]),
        end = static_cast<int>(steps * (part + 1) / parts.count[z]);
    int tiles = static_cast<int>(p.M + 7) / 8, tile_size = tiles * 8 * kStagedStep;

    char *codes = reinterpret_cast<char *>(raw) + Decoder<Format>::kShared;
    bf16 *activations = reinterpret_cast<bf16 *>(codes + kRing * S::kCodes);
    Scale *scales = reinterpret_cast<Scale *>(activations + kRing * tile_size);

    S loaded(p, z, first), headed = loaded, used = loaded;
    auto load = [&](int i) {
        if (i < end) {
            const Coded &q = set.of[loaded.g];
            char *to = codes + i % kRing * S::kCodes;
#pragma unroll
            for (int e = 0; e < S::kCodes / 16 / kStagedThreads; e++) {
                int chunk = static_cast<int>(threadIdx.x) + e * kStagedThreads, r = chunk / S::CHUNKS,
                    c = chunk % S::CHUNKS;
                int64_t n;
                int u;
                loaded.find(p, r, c * 16 / S::BYTES, n, u);
                copy16(shared_address(to + (r * S::CHUNKS + S::code_place(r, c)) * 16),
                       bytes_of(q) + int64_t(S::BYTES) * unit_of(q, n, u) + c * 16 % S::BYTES, true);
            }
            const Projection &projection = p.projection[loaded.g];
            load_rows<kStagedStep, kStagedThreads>(
                activations + i % kRing * tile_size, operand<bf16>(BACK ? projection.dy : p.x), tiles * 8, p.M,
                BACK ? loaded.row : static_cast<int64_t>(i) * kStagedStep, BACK ? projection.n : p.K, S::place);
            loaded.move(p);
        }
        commit();
    };
    /* Scales of the next step: their parts are on the way while this one is decoded. */
    typename Format::Head heads[S::EACH];
    auto find = [&](int e, int &r, int &unit, int64_t &n, int &u) {
        int at = static_cast<int>(threadIdx.x) + e * kStagedThreads;
        r = at / S::UNITS;
        unit = at % S::UNITS;
        headed.find(p, r, unit, n, u);
    };
    auto load_heads = [&] {
#pragma unroll
        for (int e = 0; e < S::EACH; e++) {
            int r, unit, u;
            int64_t n;
            find(e, r, unit, n, u);
            heads[e] = Format::head(set.of[headed.g], n, u);
        }
    };
    load(first);
    load(first + 1);
    load_heads();
    Decoder<Format> decoder(set.of[used.g], raw);
    auto store_scales = [&](int i) {
#pragma unroll
        for (int e = 0; e < S::EACH; e++) {
            int r, unit, u;
            int64_t n;
            find(e, r, unit, n, u);
            scales[i % 2 * S::kScales + S::scale_place(r, unit)] = decoder.scale(set.of[headed.g], heads[e], u);
        }
        headed.move(p);
    };
    store_scales(first);

    float c[4][kFewRows / 8][4]; /* four fragments of the weight by eight rows of activations */
#pragma unroll
    for (auto &of_weight : c) {
#pragma unroll
        for (auto &tile : of_weight) tile[0] = tile[1] = tile[2] = tile[3] = 0.0f;
    }
    for (int i = first; i < end; i++) {
        wait<1>();
        __syncthreads(); /* step i is there, and all have left step i - 1 */
        load(i + 2);
        if (i + 1 < end) load_heads();
        const char *own_codes = codes + i % kRing * S::kCodes;
        const Scale *own_scales = scales + i % 2 * S::kScales;
        const bf16 *tile = activations + i % kRing * tile_size;
        /* Octet o of unit u of row r of the step. */
        auto octet = [&](int r, int u, int o, float(&w)[8]) {
            uint32_t words[Format::kWords];
            int byte = u * S::BYTES + Format::octet_byte(o);
            const uint32_t *from = reinterpret_cast<const uint32_t *>(
                own_codes + (r * S::CHUNKS + S::code_place(r, byte / 16)) * 16 + byte % 16);
            if constexpr (Format::kWords == 2) {
                uint2 both = *reinterpret_cast<const uint2 *>(from);
                words[0] = both.x;
                words[1] = both.y;
            } else {
                words[0] = *from;
            }
            decoder.values(own_scales[S::scale_place(r, u)], words, used.unit + u, o, w);
        };
        if constexpr (BACK) {
            int u = warp * 2 + group / 4;
            for (int sub = 0; sub < kStagedStep / 16; sub++) {
                uint32_t pairs[2][8]; /* of rows 0 and 1, of rows 2 and 3 */
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float w[2][8];
#pragma unroll
                    for (int r = 0; r < 2; r++) octet(sub * 16 + t * 4 + h * 2 + r, u, group % 4, w[r]);
#pragma unroll
                    for (int k = 0; k < 8; k++) pairs[h][k] = packed<bf16>(w[0][k], w[1][k]);
                }
                const bf16 *dy = tile + group * kStagedStep + place_of_rows(group, sub * 2 + t / 2) * 8 + t % 2 * 4;
#pragma unroll
                for (int j = 0; j < kFewRows / 8; j++) {
                    if (j >= tiles) break;
                    uint2 b = *reinterpret_cast<const uint2 *>(dy + j * 8 * kStagedStep);
#pragma unroll
                    for (int f = 0; f < 4; f++) {
                        uint32_t a[4] = {pairs[0][2 * f], pairs[0][2 * f + 1], pairs[1][2 * f], pairs[1][2 * f + 1]};
                        mma<bf16>(c[f][j], a, b.x, b.y);
                    }
                }
            }
        } else {
#pragma unroll
            for (int u = 0; u < S::UNITS; u++) {
                uint32_t pairs[8][4]; /* of neighbouring columns of rows `group` + 8 r */
#pragma unroll
                for (int r = 0; r < 8; r++) {
                    float w[8];
                    octet(warp * 64 + group + 8 * r, u, t, w);
#pragma unroll
                    for (int k = 0; k < 4; k++) pairs[r][k] = packed<bf16>(w[2 * k], w[2 * k + 1]);
                }
                const bf16 *x = tile + group * kStagedStep + S::place(group, u * 4 + t) * 8;
#pragma unroll
                for (int j = 0; j < kFewRows / 8; j++) {
                    if (j >= tiles) break;
                    uint4 b = *reinterpret_cast<const uint4 *>(x + j * 8 * kStagedStep);
#pragma unroll
                    for (int f = 0; f < 4; f++) {
                        const uint32_t(&up)[4] = pairs[2 * f], (&down)[4] = pairs[2 * f + 1];
                        uint32_t low[4] = {up[0], down[0], up[1], down[1]}, high[4] = {up[2], down[2], up[3], down[3]};
                        mma<bf16>(c[f][j], low, b.x, b.y);
                        mma<bf16>(c[f][j], high, b.z, b.w);
                    }
                }
            }
        }
        used.move(p);
        if (i + 1 < end) store_scales(i + 1);
    }
    wait<0>();
    float *sums = parts.sums[z] + part * p.M * across;
#pragma unroll
    for (int j = 0; j < kFewRows / 8; j++) {
        if (j >= tiles) break;
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int64_t m = j * 8 + t * 2 + e;
            if (m >= p.M) continue;
            if constexpr (BACK) {
                int64_t k = out0 + warp * 64 + group * 8;
                float4 *to = reinterpret_cast<float4 *>(sums + m * across + k);
                if (k >= across) continue;
                to[0] = make_float4(c[0][j][e], c[0][j][2 + e], c[1][j][e], c[1][j][2 + e]);
                to[1] = make_float4(c[2][j][e], c[2][j][2 + e], c[3][j][e], c[3][j][2 + e]);
            } else {
#pragma unroll
                for (int f = 0; f < 8; f++) {
                    int64_t n = out0 + warp * 64 + f * 8 + group;
                    if (n < across) sums[m * across + n] = c[f / 2][j][f % 2 * 2 + e];
                }
            }
        }
    }
}

template <class Format>
cudaError_t launch_staged(const l4j_queue *queue, const LoraParams &p, const CodedSet &set, const Parts &parts,
                          bool backward) {
    size_t rows = static_cast<size_t>(p.M + 7) / 8 * 8;
    int64_t widest = backward ? p.K : 0;
    int32_t most = 0;
    for (int g = 0; g < (backward ? 1 : p.projections); g++) {
        if (!backward) widest = widest > p.projection[g].n ? widest : p.projection[g].n;
        most = most > parts.count[g] ? most : parts.count[g];
    }
    dim3 grid(blocks(widest, kStagedOutputs), static_cast<unsigned>(most), backward ? 1 : p.projections);
    return backward ? launch(queue, codes_staged_kernel<Format, true>, grid, kStagedThreads,
                             Staged<Format, true>::shared(rows), p, set, parts)
                    : launch(queue, codes_staged_kernel<Format, false>, grid, kStagedThreads,
                             Staged<Format, false>::shared(rows), p, set, parts);
}

} // namespace l4j
