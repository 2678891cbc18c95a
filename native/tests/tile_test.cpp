// Every tile kernel against the contract's chain, bit by bit; AMX's registers in software where the processor has none.
#include "support.h"

#if defined(L4J_TEST_TILES)
#include "tiles/tiles.h"

namespace {

// Kernels that this machine can run, besides the chain.
std::vector<int> kernels() {
    std::vector<int> all;
    for (int32_t isa : l4j::bf16_tiers()) {
        if (isa == L4J_ISA_AVX2) all.push_back(TILES_MODEL); // its sums are AVX2's
        if (isa == L4J_ISA_AVX2) all.push_back(TILES_AVX2);
        if (isa == L4J_ISA_AVX512) all.push_back(TILES_AVX512);
        if (isa == L4J_ISA_AVX512_BF16) all.push_back(TILES_AVX512_BF16);
        if (isa == L4J_ISA_AMX_BF16) all.push_back(TILES_AMX_BF16);
    }
    return all;
}

// bf16 values whose exponents lie in [low, high].
std::vector<float> values(l4j::Random &random, size_t count, int low, int high) {
    std::vector<float> v(count);
    for (float &x : v) {
        uint64_t r = random.bits();
        uint32_t exponent = static_cast<uint32_t>(low + static_cast<int>(r >> 32) % (high - low + 1));
        uint32_t bits =
            static_cast<uint32_t>(r & 1) << 31 | exponent << 23 | static_cast<uint32_t>(r >> 8 & 0x7F) << 16;
        memcpy(&x, &bits, 4);
    }
    return v;
}

void check(int rows, int panels, int k, int first, int low, int high, bool started) {
    l4j::Random random(static_cast<uint64_t>(rows * 1000003 + panels * 10007 + k * 101 + low));
    std::vector<float> a = values(random, static_cast<size_t>(rows * k), low, high);
    std::vector<float> b = values(random, static_cast<size_t>(k * 16 * panels), low, high);
    int middle = std::max(0, std::min(254, low + high - 127));
    std::vector<float> start = values(random, 32 * 32, std::max(0, middle - 2), std::min(254, middle + 2));
    std::vector<float> expected(32 * 32, 7.0f);
    tiles_multiply(TILES_CHAIN, rows, panels, k, first, a.data(), b.data(), started ? start.data() : nullptr,
                   expected.data());
    for (int kernel : kernels()) {
        std::vector<float> c(32 * 32, 7.0f);
        tiles_multiply(kernel, rows, panels, k, first, a.data(), b.data(), started ? start.data() : nullptr, c.data());
        for (int m = 0; m < 32; m++) {
            for (int n = 0; n < 32; n++) {
                size_t i = static_cast<size_t>(m * 32 + n);
                if (m >= rows && m < (rows + 15) / 16 * 16) continue; // kernels of whole tiles write these
                if (std::isnan(expected[i]) && std::isnan(c[i])) continue;
                ASSERT_EQ(0, memcmp(&expected[i], &c[i], 4))
                    << "kernel " << kernel << " rows " << rows << " panels " << panels << " k " << k << " exponents "
                    << low << " to " << high << " at " << m << ", " << n << ": " << expected[i] << " against " << c[i];
            }
        }
    }
}

TEST(TileTest, EveryKernelFollowsTheChain) {
    for (int rows : {1, 2, 3, 4, 5, 15, 16, 17, 31, 32}) {
        for (int panels : {1, 2}) {
            for (int k : {1, 2, 3, 31, 32, 33, 64, 96, 130}) {
                for (bool started : {false, true}) {
                    check(rows, panels, k, k > 64 ? 64 : 0, 120, 130, started);
                    if (HasFatalFailure()) return;
                }
            }
        }
    }
}

// Products and sums around the least normal number: subnormals are zero wherever they occur, with their sign.
TEST(TileTest, SubnormalsAreZero) {
    for (int low : {0, 40, 55, 60, 62}) {
        for (int high : {63, 66, 80}) {
            check(32, 2, 64, 32, low, high, true);
            check(32, 2, 7, 0, low, high, false);
            if (HasFatalFailure()) return;
        }
    }
}

TEST(TileTest, OverflowsInfinitiesAndNaN) {
    for (int low : {180, 190, 250}) {
        check(32, 2, 64, 32, low, 254, true);
        check(32, 2, 7, 0, low, 255, true);
        check(32, 2, 70, 0, 0, 255, true);
        if (HasFatalFailure()) return;
    }
}

} // namespace
#endif
