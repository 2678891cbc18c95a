/*
 * sample_forward. Weights exp((logit − max) / temperature) are fp64. Candidates come from a heap, most likely first, the lower
 * index first among equals:
 *   top_k    the k largest logits, and every other logit equal to the k-th;
 *   top_p    of those, the shortest prefix whose weights reach top_p of their sum: at least one.
 * One number u in [0, 1) picks the first candidate whose cumulative weight exceeds u · sum. u has the upper 53 of the 64 bits
 * word[0] << 32 | word[1] of Philox4x32-10 with key = {low, high half of seed} and
 * counter = {row, 0x73616D70 ("samp"), low, high half of step}.
 */
#include "../values.h"
#include "real.h"

typedef struct {
    const l4j_sample *args;
    double *weights;  /* [threads][V] */
    int32_t *heap;    /* [threads][V] */
    int64_t *invalid; /* [threads]: first row that has no distribution, or M */
} sample_task;

static double sample_uniform(const l4j_sample_hyper *hyper, int64_t row) {
    uint32_t c[4] = {(uint32_t)row, 0x73616D70u, (uint32_t)hyper->step, (uint32_t)((uint64_t)hyper->step >> 32)};
    l4j_philox4x32(c, (uint32_t)hyper->seed, (uint32_t)(hyper->seed >> 32));
    return (double)(((uint64_t)c[0] << 32 | c[1]) >> 11) * 0x1p-53;
}

/* A row needs a largest logit that is finite; a NaN has no place at all. */
static bool sample_valid(const l4j_tensor *logits, int64_t m) {
    bool finite = false;
    for (int64_t v = 0; v < logits->shape[1]; v++) {
        real x = *real_at2(logits, m, v);
        if (x != x || x == INFINITY) return false;
        finite |= x > -INFINITY;
    }
    return finite;
}

static int64_t sample_largest(const l4j_tensor *logits, int64_t m) {
    int64_t best = 0;
    for (int64_t v = 1; v < logits->shape[1]; v++) {
        if (*real_at2(logits, m, v) > *real_at2(logits, m, best)) best = v;
    }
    return best;
}

/* ---- a heap of token ids: larger weight first, then lower id ---- */

static bool sample_before(const double *w, int32_t a, int32_t b) { return w[a] > w[b] || (w[a] == w[b] && a < b); }

static void sample_sift(const double *w, int32_t *heap, int64_t n, int64_t i) {
    int32_t moved = heap[i];
    for (int64_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && sample_before(w, heap[child + 1], heap[child])) child++;
        if (!sample_before(w, heap[child], moved)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moved;
}

/* Moves the first of the n to their end: after k calls the last k are the first k in descending order, from the end. */
static int32_t sample_pop(const double *w, int32_t *heap, int64_t n) {
    int32_t first = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = first;
    sample_sift(w, heap, n - 1, 0);
    return first;
}

static int32_t sample_row(const l4j_sample *args, int64_t m, double *w, int32_t *heap) {
    const l4j_sample_hyper *hyper = args->hyper;
    int64_t V = args->logits->shape[1], best = sample_largest(args->logits, m), last = best;
    if (hyper->temperature == 0) return (int32_t)best;
    double max = *real_at2(args->logits, m, best), sum = 0, cumulative = 0;
    for (int64_t v = 0; v < V; v++) {
        w[v] = exp((*real_at2(args->logits, m, v) - max) / hyper->temperature);
        sum += w[v];
    }
    double u = sample_uniform(hyper, m);
    bool top_k = hyper->top_k > 0 && hyper->top_k < V;
    if (!top_k && hyper->top_p >= 1) { /* every token, in its own order */
        for (int64_t v = 0; v < V; v++) {
            cumulative += w[v];
            if (w[v] > 0) last = v;
            if (cumulative > u * sum) return (int32_t)v;
        }
        return (int32_t)last;
    }
    for (int64_t v = 0; v < V; v++) heap[v] = (int32_t)v;
    for (int64_t i = V / 2 - 1; i >= 0; i--) sample_sift(w, heap, V, i);
    int64_t kept = 0;
    if (top_k) {
        double kth = 0;
        for (sum = 0; kept < V && (kept < hyper->top_k || w[heap[0]] == kth); kept++) {
            int32_t id = sample_pop(w, heap, V - kept);
            sum += w[id];
            kth = w[id];
        }
    }
    int64_t nucleus = 0;
    while (nucleus < V && (nucleus == 0 || cumulative < hyper->top_p * sum)) {
        if (top_k && nucleus == kept) break;
        int32_t id = top_k ? heap[V - 1 - nucleus] : sample_pop(w, heap, V - nucleus);
        cumulative += w[id];
        nucleus++;
    }
    double target = u * cumulative, reached = 0;
    for (int64_t i = 0; i < nucleus; i++) {
        int32_t id = heap[V - 1 - i];
        reached += w[id];
        if (w[id] > 0) last = id;
        if (reached > target) return id;
    }
    return (int32_t)last;
}

static void sample_check_task(void *context, int thread, int threads) {
    sample_task *task = context;
    int64_t begin, end;
    l4j_partition(task->args->logits->shape[0], 1, thread, threads, &begin, &end);
    task->invalid[thread] = INT64_MAX;
    for (int64_t m = end - 1; m >= begin; m--) {
        if (!sample_valid(task->args->logits, m)) task->invalid[thread] = m;
    }
}

static void sample_draw_task(void *context, int thread, int threads) {
    sample_task *task = context;
    int64_t V = task->args->logits->shape[1], begin, end;
    l4j_partition(task->args->logits->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        task->args->ids[m] = sample_row(task->args, m, task->weights + thread * V, task->heap + thread * V);
    }
}

static size_t sample_layout(int threads, const l4j_sample *args, void *workspace, sample_task *task) {
    l4j_arena arena = {.base = workspace};
    size_t entries = (size_t)threads * (size_t)args->logits->shape[1];
    task->weights = l4j_take(&arena, sizeof(double) * entries);
    task->heap = l4j_take(&arena, sizeof(int32_t) * entries);
    task->invalid = l4j_take(&arena, sizeof(int64_t) * (size_t)threads);
    return arena.used;
}

size_t L4J_NAME(sample_forward_workspace)(int threads, const l4j_sample *args) {
    return sample_layout(threads, args, NULL, &(sample_task){0});
}

l4j_status L4J_NAME(sample_forward)(l4j_queue *queue, const l4j_sample *args, void *workspace, l4j_error *error) {
    l4j_status status = l4j_check_sample_hyper(args, error);
    if (status != L4J_OK) return status;
    sample_task task = {.args = args};
    sample_layout(queue->threads, args, workspace, &task);
    l4j_run(queue, sample_check_task, &task);
    int64_t invalid = INT64_MAX;
    for (int t = 0; t < queue->threads; t++) invalid = l4j_min64(invalid, task.invalid[t]);
    if (invalid != INT64_MAX) {
        return l4j_fail(
            error, L4J_ENUMERIC,
            "sample_forward: row %lld of logits has a NaN or +Inf, or nothing but −Inf: no token can be drawn",
            (long long)invalid);
    }
    l4j_run(queue, sample_draw_task, &task);
    return L4J_OK;
}
