/* lora_forward and lora_backward: the order of their kernels. */
#include "lora_codes.cuh"
#include "lora_stream.cuh"
#include "operations.cuh"
#include "tile.cuh"

#include "cpu/dropout.h"

namespace l4j {

/* The layout of the workspace and what the kernels are given. */
struct LoraPlan {
    LoraParams p;
    int64_t entries;       /* adapters x projections */
    int64_t chunks, slots; /* at most */
    Weights weights;
    Adapter *table;    /* workspace, NULL where `few` is enough */
    bool streams;      /* lora_stream.cuh does the low-rank work where cuBLASLt takes the base product */
    StreamPlan stream; /* backward; in the place of everything else in the workspace */
    size_t bytes;
};

/* Ranks are padded in the workspace so that rows can be copied 16 bytes at a time. */
static int64_t padded(int64_t columns) { return (columns + 7) / 8 * 8; }

static Adapter describe(const l4j_lora *args, int64_t i, bool backward) {
    Adapter entry = {};
    if (!args->a[i].data) return entry;
    entry.a = view(&args->a[i]);
    entry.b = view(&args->b[i]);
    entry.da = backward && args->da ? view(&args->da[i]) : View{};
    entry.db = backward && args->db ? view(&args->db[i]) : View{};
    entry.rank = static_cast<int32_t>(args->a[i].shape[0]);
    return entry;
}

static int32_t widest_rank(const l4j_lora *args, int g) {
    int64_t widest = 0;
    for (int64_t a = 0; a < args->adapter_count; a++) {
        const l4j_tensor *t = &args->a[a * args->projection_count + g];
        if (t->data && t->shape[0] > widest) widest = t->shape[0];
    }
    return static_cast<int32_t>(widest);
}

static void lay_out_sorted(l4j_arena *arena, const l4j_lora *args, int64_t chunks, bool backward, Sorted *o) {
    auto ints = [&](int64_t n) {
        return static_cast<int32_t *>(l4j_take(arena, sizeof(int32_t) * static_cast<size_t>(n)));
    };
    o->row_adapter = ints(args->x->shape[0]);
    if (!backward) return;
    o->rows = ints(args->x->shape[0]);
    o->start = ints(args->segment_capacity);
    o->count = ints(args->adapter_count);
    o->first = ints(args->adapter_count);
    o->slot = ints(args->adapter_count);
    o->chunks = static_cast<Chunk *>(l4j_take(arena, sizeof(Chunk) * static_cast<size_t>(chunks)));
    o->chunk_count = ints(1);
}

static LoraPlan plan_lora(const l4j_lora *args, bool backward, int multiprocessors, void *workspace) {
    LoraPlan plan = {};
    LoraParams &p = plan.p;
    l4j_arena arena = {static_cast<char *>(workspace), 0};
    int64_t M = args->x->shape[0];
    p.x = view(args->x);
    p.dx = backward ? view(args->dx) : View{};
    p.M = M;
    p.K = args->x->shape[1];
    p.projections = args->projection_count;
    p.flags = args->flags;
    p.threshold = l4j_dropout_threshold(args->dropout_p);
    p.keep = 1.0 - static_cast<double>(p.threshold) / 65536.0;
    p.scaling = args->scaling;
    p.seed = args->dropout_seed;
    p.step = args->dropout_step;
    p.token_index = args->token_index;
    p.module_id = args->module_id;
    p.adapter_id = args->adapter_id;
    plan.entries = static_cast<int64_t>(args->adapter_count) * args->projection_count;
    for (int g = 0; g < args->projection_count; g++) {
        Projection &q = p.projection[g];
        q.w = view(args->weights[g]);
        q.n = args->weights[g]->rows;
        q.width = args->adapter_count ? widest_rank(args, g) : 0;
        q.bias = args->biases ? view(&args->biases[g]) : View{};
        q.s = q.width ? view(&args->s[g]) : View{};
        if (!backward) q.y = view(&args->y[g]);
        if (backward) q.dy = view(&args->dy[g]);
        if (q.width) p.adapters = args->adapter_count;
    }
    p.segmented = args->segment_capacity > 0 && p.adapters > 0;
    /* Chunks of all adapters: each has one that is not full. Only chunks of adapters with several need a slot. */
    plan.chunks = p.segmented ? M / kChunkRows + (p.adapters < M ? p.adapters : M) : ceil_div(M, kChunkRows);
    plan.slots = M > kChunkRows ? (p.segmented ? 2 * ceil_div(M, kChunkRows) : ceil_div(M, kChunkRows)) : 0;
    if (p.segmented) lay_out_sorted(&arena, args, plan.chunks, backward, &p.sorted);
    if (plan.entries > kFewAdapters) {
        plan.table = static_cast<Adapter *>(l4j_take(&arena, sizeof(Adapter) * static_cast<size_t>(plan.entries)));
    } else {
        for (int64_t i = 0; i < plan.entries; i++) p.few[i] = describe(args, i, backward);
    }
    p.table = plan.table;
    p.adapters_aligned = true;
    for (int64_t i = 0; i < plan.entries; i++) {
        Adapter entry = describe(args, i, backward);
        bool aligned = entry.rank % 8 == 0 && rows_are_aligned(entry.a, args->x->dtype) &&
                       rows_are_aligned(entry.b, args->x->dtype);
        if (entry.rank && !aligned) p.adapters_aligned = false;
    }
    for (int g = 0; backward && g < p.projections; g++) {
        Projection &q = p.projection[g];
        if (!q.width) continue;
        int64_t ld = padded(q.width);
        q.ds = View{static_cast<char *>(l4j_take(&arena, static_cast<size_t>(M * ld) * element_bytes(args->x->dtype))),
                    ld, 1, 0, args->x->dtype};
        size_t slot = sizeof(float) * static_cast<size_t>(plan.slots * q.width);
        q.partial_db = static_cast<float *>(l4j_take(&arena, slot * static_cast<size_t>(q.n)));
        q.partial_da = static_cast<float *>(l4j_take(&arena, slot * static_cast<size_t>(p.K)));
    }
    plan.weights = Weights{args->weights, args->projection_count, nullptr, true};
    if (!backward || p.dx.data) {
        plan.weights.scratch =
            static_cast<char *>(l4j_take(&arena, products_scratch(plan.weights, p, backward, args->x->dtype)));
    }
    plan.bytes = arena.used;
    plan.streams = stream_fits(p, backward, args->x->dtype);
    for (int g = 0; g < p.projections; g++) plan.streams &= !is_coded(args->weights[g]);
    if (plan.streams && backward) {
        arena.used = 0;
        plan.stream = plan_stream(p, multiprocessors, &arena);
        plan.bytes = plan.bytes > arena.used ? plan.bytes : arena.used;
    }
    return plan;
}

/* Descriptors and sorted rows. */
static cudaError_t prepare(l4j_queue *queue, const l4j_lora *args, const LoraPlan &plan, bool backward) {
    if (plan.table) {
        Adapter entries[kTableEntries];
        for (int64_t i = 0; i < plan.entries; i += kTableEntries) {
            int n = static_cast<int>(plan.entries - i < kTableEntries ? plan.entries - i : kTableEntries);
            for (int e = 0; e < n; e++) entries[e] = describe(args, i + e, backward);
            cudaError_t status = launch_table(queue, entries, n, plan.table + i);
            if (status != cudaSuccess) return status;
        }
    }
    return plan.p.segmented ? launch_sort(queue, plan.p, args, backward) : cudaSuccess;
}

static bool streams(const l4j_queue *queue, const LoraPlan &plan, bool backward, int32_t dtype) {
    for (int g = 0; g < plan.p.projections; g++) {
        const Projection &q = plan.p.projection[g];
        if (q.width && !rows_are_aligned(q.s, dtype)) return false;
    }
    return plan.streams && takes_cublas(queue, plan.p, backward, dtype);
}

size_t lora_forward_workspace(int threads, const l4j_lora *args) {
    return plan_lora(args, false, threads, nullptr).bytes;
}

l4j_status lora_forward(l4j_queue *queue, const l4j_lora *args, void *workspace, l4j_error *error) {
    LoraPlan plan = plan_lora(args, false, queue->threads, workspace);
    plan.p.fault = fault_of(queue);
    int32_t dtype = args->x->dtype;
    L4J_CUDA("lora_forward", prepare(queue, args, plan, false));
    plan.p.low_rank_there = streams(queue, plan, false, dtype);
    if (plan.p.low_rank_there) {
        L4J_CUDA("lora_forward", launch_stream_forward(queue, plan.p, dtype));
    } else if (plan.p.adapters) {
        L4J_CUDA("lora_forward", launch_shrink(queue, plan.p, false, dtype));
    }
    L4J_CUDA("lora_forward", launch_products(queue, plan.p, plan.weights, false, dtype));
    return L4J_OK;
}

size_t lora_backward_workspace(int threads, const l4j_lora *args) {
    return plan_lora(args, true, threads, nullptr).bytes;
}

l4j_status lora_backward(l4j_queue *queue, const l4j_lora *args, void *workspace, l4j_error *error) {
    LoraPlan plan = plan_lora(args, true, queue->threads, workspace);
    plan.p.fault = fault_of(queue);
    int32_t dtype = args->x->dtype;
    L4J_CUDA("lora_backward", prepare(queue, args, plan, true));
    plan.p.low_rank_there = streams(queue, plan, true, dtype);
    if (plan.p.low_rank_there) {
        L4J_CUDA("lora_backward", launch_stream_backward(queue, plan.p, plan.stream, dtype));
    } else if (plan.p.adapters) {
        L4J_CUDA("lora_backward", launch_shrink(queue, plan.p, true, dtype));
        if (args->da || args->db) L4J_CUDA("lora_backward", launch_gradients(queue, plan.p, plan.chunks, dtype));
    }
    if (plan.p.dx.data) L4J_CUDA("lora_backward", launch_products(queue, plan.p, plan.weights, true, dtype));
    return L4J_OK;
}

} // namespace l4j
