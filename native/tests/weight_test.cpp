#include "support.h"

namespace {

l4j_weight_options options_for(const l4j_tensor *t, int32_t mode) {
    static const int32_t role = L4J_ROLE_VALUES;
    l4j_weight_options o = {};
    o.struct_size = sizeof o;
    o.scheme = L4J_SCHEME_DENSE;
    o.mode = mode;
    o.rows = t->shape[0];
    o.cols = t->shape[1];
    o.part_count = 1;
    o.part_roles = &role;
    o.part_values = t;
    return o;
}

TEST(WeightTest, QueryTellsWhatIsHeld) {
    l4j::Context context(L4J_ISA_REF);
    std::vector<float> values = l4j::Random(1).floats(33 * 17);
    l4j::TestWeight borrowed(context, 33, 17, values), packed(context, 33, 17, values, L4J_BF16, L4J_WEIGHT_PACK);
    l4j_weight_info info = {};
    info.struct_size = sizeof info;
    L4J_ASSERT_OK(l4j_weight_query(borrowed.get(), &info, error));
    EXPECT_EQ(0, info.bytes_held);
    EXPECT_EQ(L4J_F32, info.dtype);
    L4J_ASSERT_OK(l4j_weight_query(packed.get(), &info, error));
    EXPECT_GE(info.bytes_held, 48 * 17 * 2);
    EXPECT_LE(info.bytes_held, 48 * 17 * 2 + 128);
    EXPECT_EQ(L4J_BF16, info.dtype);
    EXPECT_EQ(33, info.rows);
    EXPECT_EQ(17, info.cols);
}

// What goes in comes out, for every dtype and layout.
TEST(WeightTest, ValuesSurvivePacking) {
    for (int32_t isa : l4j::tiers()) {
        for (int threads : {1, 2, 5}) {
            l4j::Context context(isa, threads);
            for (int64_t rows : {1, 15, 16, 17, 40}) {
                for (int64_t cols : {1, 7, 31, 32, 33, 100}) {
                    std::vector<float> values = l4j::Random(7).floats(rows * cols);
                    for (float &x : values) { // exact in bf16 and fp16
                        uint32_t u = static_cast<uint32_t>(l4j::to_bf16(x)) << 16;
                        memcpy(&x, &u, 4);
                    }
                    for (int32_t dtype : {L4J_F32, L4J_F16, L4J_BF16}) {
                        for (int32_t mode : {L4J_WEIGHT_BORROW, L4J_WEIGHT_PACK}) {
                            l4j::TestWeight weight(context, rows, cols, values, dtype, mode, 3);
                            l4j::Operand out(isa, {rows, cols}, 5);
                            l4j_dequantize args = {};
                            args.struct_size = sizeof args;
                            args.weight = weight.get();
                            args.out = out.get();
                            L4J_ASSERT_OK(L4J_RUN(dequantize_forward, context.queue(), &args)(error));
                            std::vector<float> got = out.floats();
                            for (size_t i = 0; i < got.size(); i++) {
                                if (std::fabs(values[i]) >= 0x1p-14f || dtype != L4J_F16) {
                                    ASSERT_EQ(values[i], got[i]) << i;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

TEST(WeightTest, NonFiniteValuesAreNamed) {
    for (int threads : {1, 4}) {
        l4j::Context context(L4J_ISA_REF, threads);
        for (int32_t dtype : {L4J_F32, L4J_F16, L4J_BF16}) {
            std::vector<uint32_t> storage(20 * 30, 0);
            l4j_tensor t = l4j::tensor(storage.data(), dtype, {20, 30});
            auto poison = [&](int64_t n, int64_t k) {
                int64_t at = n * 30 + k;
                if (dtype == L4J_F32)
                    storage[static_cast<size_t>(at)] = 0x7F800001u;
                else
                    reinterpret_cast<uint16_t *>(storage.data())[at] = 0x7F81; // NaN as bf16 and as fp16
            };
            poison(11, 29);
            poison(17, 2);
            l4j_weight_options o = options_for(&t, L4J_WEIGHT_PACK);
            l4j_weight *weight = nullptr;
            l4j_error error = {};
            EXPECT_EQ(L4J_ENUMERIC, l4j_weight_create(context.device(), context.queue(), &o, &weight, &error));
            EXPECT_STREQ("weight_create: value [11, 29] is NaN or Inf; expected finite weights", error.message);
            EXPECT_EQ(nullptr, weight);
            o.flags = L4J_WEIGHT_ALLOW_NONFINITE;
            L4J_ASSERT_OK(l4j_weight_create(context.device(), nullptr, &o, &weight, error));
            l4j_weight_destroy(weight, nullptr);
        }
    }
}

TEST(WeightTest, BadOptionsAreRefused) {
    l4j::Context context(L4J_ISA_REF);
    std::vector<float> values(12, 1.0f);
    l4j_tensor good = l4j::tensor(values.data(), L4J_F32, {3, 4});
    struct {
        l4j_status status;
        const char *part;
        void (*change)(l4j_weight_options *, l4j_tensor *);
    } cases[] = {
        {L4J_EABI, "struct_size is 1", [](l4j_weight_options *o, l4j_tensor *) { o->struct_size = 1; }},
        {L4J_ENOTSUP, "scheme 77", [](l4j_weight_options *o, l4j_tensor *) { o->scheme = 77; }},
        {L4J_EINVAL, "mode is 9", [](l4j_weight_options *o, l4j_tensor *) { o->mode = 9; }},
        {L4J_EINVAL, "found 2 parts", [](l4j_weight_options *o, l4j_tensor *) { o->part_count = 2; }},
        {L4J_ENOTSUP, "dtype 5", [](l4j_weight_options *, l4j_tensor *t) { t->dtype = L4J_I8; }},
        {L4J_EDEVICE, "device type 2", [](l4j_weight_options *, l4j_tensor *t) { t->device_type = L4J_DEVICE_CUDA; }},
        {L4J_EINVAL, "[3, 4] in 2 dimensions, expected [3, 5]",
         [](l4j_weight_options *o, l4j_tensor *) { o->cols = 5; }},
        {L4J_EINVAL, "strides are [1, 3]",
         [](l4j_weight_options *, l4j_tensor *t) { t->stride[0] = 1, t->stride[1] = 3; }},
        {L4J_EINVAL, "rows and cols are 3 and 0, expected", [](l4j_weight_options *o, l4j_tensor *) { o->cols = 0; }},
        {L4J_EINVAL, "at most 2^40 values",
         [](l4j_weight_options *o, l4j_tensor *t) {
             o->rows = t->shape[0] = int64_t{1} << 62;
             o->flags = L4J_WEIGHT_ALLOW_NONFINITE;
         }},
        {L4J_EINVAL, "reserved[2] is not zero", [](l4j_weight_options *o, l4j_tensor *) { o->reserved[2] = 1; }},
        {L4J_EINVAL, "compute is 2, expected L4J_COMPUTE_F32, or L4J_COMPUTE_BF16 with L4J_WEIGHT_PACK",
         [](l4j_weight_options *o, l4j_tensor *) { o->compute = 2; }},
        {L4J_EINVAL, "compute is 1, expected L4J_COMPUTE_F32, or L4J_COMPUTE_BF16 with L4J_WEIGHT_PACK",
         [](l4j_weight_options *o, l4j_tensor *) {
             o->mode = L4J_WEIGHT_BORROW;
             o->compute = L4J_COMPUTE_BF16;
         }},
        {L4J_EINVAL, "values.reserved is not zero", [](l4j_weight_options *, l4j_tensor *t) { t->reserved = 1; }},
        {L4J_EINVAL, "data is NULL", [](l4j_weight_options *, l4j_tensor *t) { t->data = nullptr; }},
        {L4J_EALIGN, "not aligned",
         [](l4j_weight_options *, l4j_tensor *t) { t->data = static_cast<char *>(t->data) + 1; }},
    };
    for (auto &c : cases) {
        l4j_tensor t = good;
        l4j_weight_options o = options_for(&t, L4J_WEIGHT_BORROW);
        c.change(&o, &t);
        l4j_weight *weight = nullptr;
        l4j_error error = {};
        EXPECT_EQ(c.status, l4j_weight_create(context.device(), nullptr, &o, &weight, &error)) << c.part;
        EXPECT_NE(nullptr, strstr(error.message, c.part)) << error.message;
        EXPECT_EQ(nullptr, weight);
    }
}

} // namespace
