#include "values.h"

#include <math.h>

/* Segments follow one another from the first row to the last. */
static l4j_status check_segments(const l4j_lora *args, const char *op, l4j_error *error) {
    int64_t M = args->x->shape[0];
    int32_t count = *args->segment_count;
    if (count < 0 || count > args->segment_capacity) {
        return l4j_fail(error, L4J_EINVAL, "%s: segment_count is %d, expected 0 to segment_capacity = %d", op, count,
                        args->segment_capacity);
    }
    for (int32_t i = 0; i < count; i++) {
        int32_t from = args->segment_offsets[i], to = args->segment_offsets[i + 1], adapter = args->segment_adapters[i];
        if (from > to || (i == 0 && from != 0)) {
            return l4j_fail(
                error, L4J_EINVAL,
                "%s: segment_offsets[%d] and [%d] are %d and %d; expected offsets that start at 0 and never "
                "fall",
                op, i, i + 1, from, to);
        }
        if (adapter < -1 || adapter >= args->adapter_count) {
            return l4j_fail(error, L4J_EINVAL, "%s: segment_adapters[%d] is %d, expected -1 to %d", op, i, adapter,
                            args->adapter_count - 1);
        }
    }
    int64_t end = count ? args->segment_offsets[count] : 0;
    if (end != M) {
        return l4j_fail(error, L4J_EINVAL, "%s: the segments end at row %lld, but x has %lld rows", op, (long long)end,
                        (long long)M);
    }
    return L4J_OK;
}

l4j_status l4j_check_lora(const l4j_lora *args, const char *op, l4j_error *error) {
    bool adapters = false;
    for (int i = 0; i < args->adapter_count * args->projection_count; i++) {
        if (!args->a[i].data) continue;
        adapters = true;
        if (!isfinite(args->scaling[i])) {
            return l4j_fail(error, L4J_EINVAL, "%s: scaling[%d] is %g, expected a finite number", op, i,
                            (double)args->scaling[i]);
        }
    }
    if (args->segment_capacity > 0) {
        l4j_status status = check_segments(args, op, error);
        if (status != L4J_OK) return status;
    }
    if (!adapters || args->dropout_p == 0) return L4J_OK;
    for (int g = 0; g < args->projection_count; g++) {
        if (args->module_id[g] < 0 || args->module_id[g] > 65535) {
            return l4j_fail(error, L4J_EINVAL, "%s: module_id[%d] is %d, expected 0 to 65535", op, g,
                            args->module_id[g]);
        }
    }
    for (int a = 0; a < args->adapter_count; a++) {
        if (args->adapter_id[a] < 0 || args->adapter_id[a] > 65535) {
            return l4j_fail(error, L4J_EINVAL, "%s: adapter_id[%d] is %d, expected 0 to 65535", op, a,
                            args->adapter_id[a]);
        }
    }
    return L4J_OK;
}

void l4j_lora_rows(const l4j_lora *args, int32_t *row) {
    if (args->segment_capacity == 0) {
        for (int64_t m = 0; m < args->x->shape[0]; m++) row[m] = args->adapter_count - 1;
        return;
    }
    for (int32_t i = 0; i < *args->segment_count; i++) {
        for (int32_t m = args->segment_offsets[i]; m < args->segment_offsets[i + 1]; m++)
            row[m] = args->segment_adapters[i];
    }
}

l4j_status l4j_check_ids(const l4j_embedding *args, bool backward, l4j_error *error) {
    int64_t M = (backward ? args->dout : args->out)->shape[0];
    int64_t V = backward ? args->dweight->shape[0] : args->weight->rows;
    for (int64_t m = 0; m < M; m++) {
        if (args->ids[m] < 0 || args->ids[m] >= V) {
            return l4j_fail(error, L4J_EINVAL, "embedding_%s: ids[%lld] is %d, expected 0 to %lld",
                            backward ? "backward" : "forward", (long long)m, args->ids[m], (long long)(V - 1));
        }
    }
    return L4J_OK;
}

l4j_status l4j_check_targets(const l4j_linear_cross_entropy *args, l4j_error *error) {
    int64_t V = args->weight->rows;
    for (int64_t m = 0; m < args->x->shape[0]; m++) {
        int32_t target = args->targets[m];
        if (target != args->ignore_index && (target < 0 || target >= V)) {
            return l4j_fail(
                error, L4J_EINVAL,
                "linear_cross_entropy_forward: targets[%lld] is %d, expected 0 to %lld, or %d to ignore the row",
                (long long)m, target, (long long)(V - 1), args->ignore_index);
        }
    }
    return L4J_OK;
}

l4j_status l4j_check_positions(const l4j_rope *args, l4j_error *error) {
    int64_t limit = args->cosine->shape[0];
    for (int64_t m = 0; m < args->src->shape[0]; m++) {
        if (args->positions[m] < 0 || args->positions[m] >= limit) {
            return l4j_fail(error, L4J_EINVAL,
                            "rope: positions[%lld] is %d, expected 0 to %lld, the rows of cosine and sine",
                            (long long)m, args->positions[m], (long long)limit - 1);
        }
    }
    return L4J_OK;
}

/* The gradients of keys are written once: no two sequences may share a key. */
static l4j_status check_disjoint_keys(const l4j_attention *args, l4j_error *error) {
    int64_t highest = 0; /* end of all keys so far: sequences in ascending order need no comparison */
    for (int b = 0; b < args->sequences; b++) {
        int64_t begin = args->kv_starts[b], end = begin + args->kv_lengths[b], reached = highest;
        highest = l4j_max64(highest, end);
        if (begin >= reached) continue;
        for (int a = b - 1; a >= 0; a--) {
            int64_t other = args->kv_starts[a], other_end = other + args->kv_lengths[a];
            if (l4j_max64(begin, other) < l4j_min64(end, other_end)) {
                return l4j_fail(
                    error, L4J_EINVAL,
                    "attention_backward: sequences %d and %d share keys (rows %lld to %lld); their gradients "
                    "would overwrite each other",
                    a, b, (long long)l4j_max64(begin, other), (long long)l4j_min64(end, other_end) - 1);
            }
        }
    }
    return L4J_OK;
}

l4j_status l4j_check_sequences(const l4j_attention *args, bool backward, l4j_error *error) {
    const char *op = backward ? "attention_backward" : "attention_forward";
    int64_t rows = args->q->shape[0], key_rows = args->k->shape[0];
    for (int b = 0; b < args->sequences; b++) {
        int64_t begin = args->q_offsets[b], end = args->q_offsets[b + 1];
        int64_t start = args->kv_starts[b], keys = args->kv_lengths[b], queries = end - begin;
        if (begin < 0 || queries < 0 || end > rows) {
            return l4j_fail(
                error, L4J_EINVAL,
                "%s: q_offsets[%d..%d] are %lld and %lld, expected ascending within 0 to %lld, the rows of q", op, b,
                b + 1, (long long)begin, (long long)end, (long long)rows);
        }
        if (start < 0 || keys < 0 || start + keys > key_rows) {
            return l4j_fail(
                error, L4J_EINVAL,
                "%s: sequence %d has kv_starts %lld and kv_lengths %lld, expected keys within 0 to %lld, the "
                "rows of k",
                op, b, (long long)start, (long long)keys, (long long)key_rows);
        }
        if (queries > args->max_q_length || keys > args->max_kv_length) {
            return l4j_fail(error, L4J_EINVAL,
                            "%s: sequence %d has %lld queries and %lld keys, expected at most max_q_length = %lld and "
                            "max_kv_length = %lld",
                            op, b, (long long)queries, (long long)keys, (long long)args->max_q_length,
                            (long long)args->max_kv_length);
        }
        bool causal = args->flags & L4J_ATTENTION_CAUSAL;
        if (queries > 0 && (causal ? keys < queries : keys == 0)) {
            return l4j_fail(error, L4J_EINVAL,
                            "%s: sequence %d has %lld queries and %lld keys: its first query would see no key", op, b,
                            (long long)queries, (long long)keys);
        }
    }
    return backward ? check_disjoint_keys(args, error) : L4J_OK;
}

l4j_status l4j_check_adamw_hyper(const l4j_adamw *args, l4j_error *error) {
    for (int64_t g = 0; g < args->group_count; g++) {
        const l4j_adamw_hyper *h = args->groups[g].hyper;
        const struct {
            const char *name;
            double value, limit; /* 0 ≤ value < limit */
        } checks[] = {{"learning_rate", h->learning_rate, INFINITY},
                      {"beta1", h->beta1, 1},
                      {"beta2", h->beta2, 1},
                      {"epsilon", h->epsilon, INFINITY},
                      {"weight_decay", h->weight_decay, INFINITY},
                      {"max_grad_norm", h->max_grad_norm, INFINITY},
                      {"grad_scale", h->grad_scale, INFINITY}};
        for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
            if (checks[i].value >= 0 && checks[i].value < checks[i].limit) continue;
            return l4j_fail(error, L4J_EINVAL, "adamw_step: groups[%lld].hyper->%s is %g, expected %s", (long long)g,
                            checks[i].name, checks[i].value,
                            checks[i].limit == 1 ? "0 ≤ value < 1" : "a finite value ≥ 0");
        }
        if (h->step < 1) {
            return l4j_fail(error, L4J_EINVAL, "adamw_step: groups[%lld].hyper->step is %lld, expected 1 or more",
                            (long long)g, (long long)h->step);
        }
    }
    return L4J_OK;
}

l4j_status l4j_check_sample_hyper(const l4j_sample *args, l4j_error *error) {
    const l4j_sample_hyper *h = args->hyper;
    if (!(h->temperature >= 0 && isfinite(h->temperature))) {
        return l4j_fail(error, L4J_EINVAL, "sample_forward: hyper->temperature is %g, expected a finite value ≥ 0",
                        h->temperature);
    }
    if (!(h->top_p > 0 && h->top_p <= 1)) {
        return l4j_fail(error, L4J_EINVAL, "sample_forward: hyper->top_p is %g, expected 0 < top_p ≤ 1 (1 = off)",
                        h->top_p);
    }
    if (h->top_k < 0) {
        return l4j_fail(error, L4J_EINVAL, "sample_forward: hyper->top_k is %d, expected 0 (off) or more", h->top_k);
    }
    if (h->reserved != 0) return l4j_fail(error, L4J_EINVAL, "sample_forward: hyper->reserved is not zero");
    return L4J_OK;
}
