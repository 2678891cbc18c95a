// What l4j_lora refuses, message by message, and the known answers of its dropout.
#include "lora_case.h"

#include <atomic>
using std::atomic_int;
extern "C" {
#include "cpu/internal.h"
}

namespace {

using l4j::LoraCase;
using l4j::LoraSpec;

// Random123's published vectors of Philox4x32-10.
TEST(DropoutTest, PhiloxKnownAnswers) {
    struct {
        uint32_t counter[4], key[2], expected[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (auto &v : vectors) {
        uint32_t c[4];
        memcpy(c, v.counter, sizeof c);
        l4j_philox4x32(c, v.key[0], v.key[1]);
        for (int i = 0; i < 4; i++) EXPECT_EQ(v.expected[i], c[i]);
    }
}

// The header's example; computed by an independent implementation of its text.
TEST(DropoutTest, MaskKnownAnswers) {
    const uint16_t expected[40] = {0x2D29, 0xF92F, 0x2BA7, 0x80CD, 0x8EC0, 0x2B92, 0xF7E8, 0x59F6, 0x28BD, 0xE752,
                                   0x0260, 0xB601, 0x66B4, 0x45DE, 0xF435, 0xD9FC, 0x36E2, 0xA13F, 0x7C6F, 0x52FD,
                                   0x1997, 0x2DC3, 0x995E, 0x88B5, 0xBF9C, 0xD74F, 0x9A7F, 0x2104, 0x7936, 0xB9A1,
                                   0x717D, 0xA3E1, 0xCCED, 0x2021, 0xC24B, 0xADA1, 0x97DD, 0x11F8, 0x1CD1, 0x66C2};
    for (int64_t columns : {0, 1, 31, 32, 33, 40}) {
        uint16_t bits[41];
        memset(bits, 0xAB, sizeof bits);
        L4J_ASSERT_OK(l4j_philox_mask16(0x0123456789abcdefull, 5, 7, 3, 1, columns, bits, error));
        for (int64_t k = 0; k < columns; k++) EXPECT_EQ(expected[k], bits[k]) << k;
        EXPECT_EQ(0xABAB, bits[columns]);
    }
}

// Every tier draws these bits: p just above and just below each of them decides over the element.
TEST(DropoutTest, EveryTierDrawsTheKnownBits) {
    for (int32_t isa : l4j::tiers()) {
        for (uint32_t threshold : {0x2D29u, 0x2D2Au, 0xD74Fu, 0xD750u}) { // bits of columns 0 and 25
            LoraSpec spec;
            spec.M = 1;
            spec.K = 40;
            spec.R = {40};
            spec.p = static_cast<float>(threshold) / 65536;
            LoraCase c(spec, isa, 1);
            c.token_index[0] = 7;
            c.module_id[0] = 3;
            c.x.fill(1.0);
            for (int64_t i = 0; i < 1600; i++) c.a[0].set(i, i / 40 == i % 40 ? 1 : 0);
            c.forward();
            EXPECT_EQ(0x2D29u >= threshold, c.s[0].at(0) != 0) << l4j::tier_name(isa);
            EXPECT_EQ(0xD74Fu >= threshold, c.s[0].at(25) != 0) << l4j::tier_name(isa);
        }
    }
}

struct Bad {
    l4j_status status;
    const char *message;
    void (*change)(LoraCase &, l4j_lora &);
};

l4j_tensor &mutable_at(const l4j_tensor *list, int g) { return const_cast<l4j_tensor *>(list)[g]; }

LoraSpec two_projections() {
    LoraSpec spec;
    spec.M = 9;
    spec.K = 33;
    spec.N = {31, 20};
    spec.R = {5, 4};
    spec.bias = L4J_F32;
    spec.p = 0.5f;
    return spec;
}

const Bad kBoth[] = {
    {L4J_EABI, "struct_size is 8, expected", [](LoraCase &, l4j_lora &a) { a.struct_size = 8; }},
    {L4J_EINVAL, "reserved[7] is not zero", [](LoraCase &, l4j_lora &a) { a.reserved[7] = 1; }},
    {L4J_EINVAL, "reserved0 is not zero", [](LoraCase &, l4j_lora &a) { a.reserved0 = 1; }},
    {L4J_EINVAL, "flags are 0x8, expected", [](LoraCase &, l4j_lora &a) { a.flags = 8; }},
    {L4J_EINVAL, "projection_count is 0, expected 1 to 16", [](LoraCase &, l4j_lora &a) { a.projection_count = 0; }},
    {L4J_EINVAL, "projection_count is 17, expected 1 to 16", [](LoraCase &, l4j_lora &a) { a.projection_count = 17; }},
    {L4J_EINVAL, "adapter_count is -1, expected 0 to 65536", [](LoraCase &, l4j_lora &a) { a.adapter_count = -1; }},
    {L4J_EINVAL, "segments are given but segment_capacity is 0",
     [](LoraCase &c, l4j_lora &a) { a.segment_adapters = &c.adapter_id; }},
    {L4J_ENOTSUP, "magnitudes (DoRA) are not supported yet", [](LoraCase &, l4j_lora &a) { a.magnitudes = a.x; }},
    {L4J_EINVAL, "compute is 3, expected L4J_COMPUTE_F32 or L4J_COMPUTE_BF16",
     [](LoraCase &, l4j_lora &a) { a.compute = 3; }},
    {L4J_EINVAL, "dropout_p is -0.1, expected 0 <= p < 1", [](LoraCase &, l4j_lora &a) { a.dropout_p = -0.1f; }},
    {L4J_EINVAL, "dropout_p is 1, expected 0 <= p < 1", [](LoraCase &, l4j_lora &a) { a.dropout_p = 1; }},
    {L4J_EINVAL, "dropout_p is nan", [](LoraCase &, l4j_lora &a) { a.dropout_p = std::nanf(""); }},
    {L4J_EINVAL, "which is 0 of 65536; expected 0, or 1 to 65535 of 65536",
     [](LoraCase &, l4j_lora &a) { a.dropout_p = 1e-6f; }},
    {L4J_EINVAL, "which is 65536 of 65536", [](LoraCase &, l4j_lora &a) { a.dropout_p = 0.999999f; }},
    {L4J_EINVAL, "dropout_seed is NULL", [](LoraCase &, l4j_lora &a) { a.dropout_seed = nullptr; }},
    {L4J_EINVAL, "dropout_step is NULL", [](LoraCase &, l4j_lora &a) { a.dropout_step = nullptr; }},
    {L4J_EINVAL, "token_index is NULL", [](LoraCase &, l4j_lora &a) { a.token_index = nullptr; }},
    {L4J_EINVAL, "module_id is NULL", [](LoraCase &, l4j_lora &a) { a.module_id = nullptr; }},
    {L4J_EINVAL, "adapter_id is NULL", [](LoraCase &, l4j_lora &a) { a.adapter_id = nullptr; }},
    {L4J_EINVAL, "module_id[1] is 65536, expected 0 to 65535", [](LoraCase &c, l4j_lora &) { c.module_id[1] = 65536; }},
    {L4J_EINVAL, "adapter_id[0] is -1, expected 0 to 65535", [](LoraCase &c, l4j_lora &) { c.adapter_id = -1; }},
    {L4J_EINVAL, "x is NULL", [](LoraCase &, l4j_lora &a) { a.x = nullptr; }},
    {L4J_EINVAL, "x is F32 [9], expected F32 [any, any]",
     [](LoraCase &c, l4j_lora &) { c.x.mutable_tensor().ndim = 1; }},
    {L4J_EINVAL, "x is BF16 [9, 33], expected F32 [any, any]",
     [](LoraCase &c, l4j_lora &) { c.x.mutable_tensor().dtype = L4J_BF16; }},
    {L4J_EDEVICE, "x lies on device type 2", [](LoraCase &c, l4j_lora &) { c.x.mutable_tensor().device_type = 2; }},
    {L4J_EALIGN, "x.data is not aligned to its element size of 4 bytes",
     [](LoraCase &c, l4j_lora &) {
         l4j_tensor &t = c.x.mutable_tensor();
         t.data = static_cast<char *>(t.data) + 1;
     }},
    {L4J_EINVAL, "weights is NULL", [](LoraCase &, l4j_lora &a) { a.weights = nullptr; }},
    {L4J_EINVAL, "weights[0] is [31, 33], expected [any, 32]",
     [](LoraCase &c, l4j_lora &) { c.x.mutable_tensor().shape[1] = 32; }},
    {L4J_EINVAL, "biases[0] is F32 [30], expected F32, F16 or BF16 [31] because weights[0] has 31 rows",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.biases, 0).shape[0] = 30; }},
    {L4J_EINVAL, ": a is NULL", [](LoraCase &, l4j_lora &a) { a.a = nullptr; }},
    {L4J_EINVAL, ": b is NULL", [](LoraCase &, l4j_lora &a) { a.b = nullptr; }},
    {L4J_EINVAL, "scaling is NULL", [](LoraCase &, l4j_lora &a) { a.scaling = nullptr; }},
    {L4J_EINVAL, "scaling[1] is inf, expected a finite number",
     [](LoraCase &c, l4j_lora &) { c.scaling[1] = INFINITY; }},
    {L4J_EINVAL, "a[1] is F32 [4, 32], expected F32 [any, 33] because x has 33 columns",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.a, 1).shape[1] = 32; }},
    {L4J_EINVAL, "a[1] has rank 0, expected at least 1",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.a, 1).shape[0] = 0; }},
    {L4J_EINVAL, "b[1] is F32 [20, 3], expected F32 [20, 4] because weights[1] has 20 rows and a[1] has rank 4",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.b, 1).shape[1] = 3; }},
    {L4J_EINVAL, "b[1] is given but a[1].data is NULL; expected both or neither",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.a, 1).data = nullptr; }},
    {L4J_EINVAL, ": s is NULL", [](LoraCase &, l4j_lora &a) { a.s = nullptr; }},
    {L4J_EINVAL, "s[1] is F32 [9, 3], expected F32 [9, 4] because x has 9 rows",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.s, 1).shape[1] = 3; }},
};

const Bad kForward[] = {
    {L4J_EINVAL, "y is NULL", [](LoraCase &, l4j_lora &a) { a.y = nullptr; }},
    {L4J_EINVAL, "y[1] is F32 [9, 31], expected F32 [9, 20] because x has 9 rows",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.y, 1).shape[1] = 31; }},
    {L4J_EINVAL, "y[0] is F32 [9, 31] with strides [31, 2, 0, 0]; an output needs an innermost stride of 1",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.y, 0).stride[1] = 2; }},
    {L4J_EINVAL, "an output needs an innermost stride of 1 and rows that do not overlap",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.y, 0).stride[0] = 30; }},
    {L4J_EINVAL, "y[1] and x have the same memory; an output may not overlap an input",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.y, 1).data = a.x->data; }},
};

const Bad kBackward[] = {
    {L4J_EINVAL, "dy is NULL", [](LoraCase &, l4j_lora &a) { a.dy = nullptr; }},
    {L4J_EINVAL, "dy[0] is F32 [8, 31], expected F32 [9, 31] because x has 9 rows",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.dy, 0).shape[0] = 8; }},
    {L4J_EINVAL, "dx is F32 [9, 32], expected F32 [9, 33] because that is the shape of x",
     [](LoraCase &c, l4j_lora &) { c.dx.mutable_tensor().shape[1] = 32; }},
    {L4J_EINVAL, "dx and x have the same memory", [](LoraCase &, l4j_lora &a) { a.dx = a.x; }},
    {L4J_EINVAL, "dx and dy[1] have the same memory",
     [](LoraCase &c, l4j_lora &a) { mutable_at(a.dy, 1).data = c.dx.mutable_tensor().data; }},
    {L4J_EINVAL, "da[0] is F32 [4, 33], expected F32 [5, 33] because that is the shape of a[0]",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.da, 0).shape[0] = 4; }},
    {L4J_EINVAL, "db[1] is F32 [20, 5], expected F32 [20, 4] because that is the shape of b[1]",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.db, 1).shape[1] = 5; }},
    {L4J_EINVAL, "da[0] is given but projection 0 has no adapter; expected data NULL",
     [](LoraCase &, l4j_lora &a) { mutable_at(a.a, 0).data = mutable_at(a.b, 0).data = nullptr; }},
};

template <size_t n> void check_forward(const Bad (&cases)[n]) {
    for (const Bad &bad : cases) {
        LoraCase c(two_projections(), L4J_ISA_REF, 1);
        l4j_lora args = c.args();
        bad.change(c, args);
        l4j_error error = {};
        EXPECT_EQ(bad.status, L4J_RUN(lora_forward, c.context().queue(), &args)(&error)) << bad.message;
        EXPECT_NE(nullptr, strstr(error.message, bad.message)) << error.message << "\nexpected: " << bad.message;
        EXPECT_NE(nullptr, strstr(error.message, "lora_forward: "));
        EXPECT_TRUE(std::isnan(c.y[0].at(0))) << "written to before the refusal: " << bad.message;
    }
}

template <size_t n> void check_backward(const Bad (&cases)[n]) {
    for (const Bad &bad : cases) {
        LoraCase c(two_projections(), L4J_ISA_REF, 1);
        l4j_lora args = c.args();
        bad.change(c, args);
        l4j_error error = {};
        EXPECT_EQ(bad.status, L4J_RUN(lora_backward, c.context().queue(), &args)(&error)) << bad.message;
        EXPECT_NE(nullptr, strstr(error.message, bad.message)) << error.message << "\nexpected: " << bad.message;
        EXPECT_NE(nullptr, strstr(error.message, "lora_backward: "));
    }
}

TEST(LoraArgumentsTest, BothDirections) {
    check_forward(kBoth);
    check_backward(kBoth);
}
TEST(LoraArgumentsTest, Forward) { check_forward(kForward); }
TEST(LoraArgumentsTest, Backward) { check_backward(kBackward); }

TEST(LoraArgumentsTest, WorkspaceIsChecked) {
    for (int32_t isa : l4j::tiers()) {
        LoraCase c(two_projections(), isa, 1);
        l4j_lora args = c.args();
        size_t bytes = 0;
        L4J_ASSERT_OK(l4j_lora_forward_workspace(c.context().queue(), &args, &bytes, error));
        ASSERT_GT(bytes, 0u);
        l4j::Guarded workspace((bytes + 63) / 64 * 64 + 64);
        l4j_error error = {};
        EXPECT_EQ(L4J_EWORKSPACE, l4j_lora_forward(c.context().queue(), &args, nullptr, bytes, &error));
        EXPECT_EQ(L4J_EWORKSPACE, l4j_lora_forward(c.context().queue(), &args, workspace.as(), bytes - 1, &error));
        EXPECT_EQ(L4J_EWORKSPACE,
                  l4j_lora_forward(c.context().queue(), &args, workspace.as<char>() + 4, bytes, &error));
    }
}

} // namespace
