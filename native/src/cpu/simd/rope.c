/* rope_forward and rope_backward. */
#include "../values.h"
#include "rows.h"

#include <math.h>

/* Where the two elements of pair i lie, and the angle's row. */
typedef struct {
    const float *src, *cosine, *sine;
    float *dst;
    int64_t stride, cosine_stride, sine_stride; /* of src and the tables */
    int64_t half;
    float direction;
} rope_head;

/* Halves (i, i + half), everything contiguous. */
static void rope_halves(const rope_head *head) {
    const float *src = head->src, *cosine = head->cosine, *sine = head->sine;
    float *dst = head->dst;
    int64_t half = head->half;
    v16 direction = v16_set1(head->direction);
#define ROPE_HALVES(i, lanes)                                                                     \
    do {                                                                                          \
        v16 a = rows_load(src + i, lanes), b = rows_load(src + half + i, lanes);                  \
        v16 c = rows_load(cosine + i, lanes), s = v16_mul(direction, rows_load(sine + i, lanes)); \
        rows_store(dst + i, v16_fnma(b, s, v16_mul(a, c)), lanes);                                \
        rows_store(dst + half + i, v16_fma(a, s, v16_mul(b, c)), lanes);                          \
    } while (0)
    ROWS_EACH(half, ROPE_HALVES);
#undef ROPE_HALVES
}

/* Any layout, pairs from `first` on: pair i at step · i and step · i + gap. */
static void rope_pairs(const rope_head *head, int64_t first, int64_t step, int64_t gap) {
    for (int64_t i = first; i < head->half; i++) {
        float a = head->src[step * i * head->stride], b = head->src[(step * i + gap) * head->stride];
        float c = head->cosine[i * head->cosine_stride], s = head->direction * head->sine[i * head->sine_stride];
        head->dst[step * i] = fmaf(-b, s, a * c);
        head->dst[step * i + gap] = fmaf(a, s, b * c);
    }
}

/* Pairs (2i, 2i + 1), everything contiguous: four of them in a register, x · cos + swapped x · (−sin, sin). */
static void rope_neighbours(const rope_head *head) {
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    const float s = head->direction;
    const __m256 sign = _mm256_setr_ps(-s, s, -s, s, -s, s, -s, s);
    int64_t i = 0;
    for (; i + 4 <= head->half; i += 4) {
        __m256 cosine = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(head->cosine + i)), twice);
        __m256 sine = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(head->sine + i)), twice);
        __m256 x = _mm256_loadu_ps(head->src + 2 * i), swapped = _mm256_permute_ps(x, 0xB1);
        x = _mm256_fmadd_ps(swapped, _mm256_mul_ps(sine, sign), _mm256_mul_ps(x, cosine));
        _mm256_storeu_ps(head->dst + 2 * i, x);
    }
    rope_pairs(head, i, 2, 1);
}

static void rope_rows(const l4j_rope *args, float direction, int thread, int threads) {
    const l4j_tensor *src = args->src, *dst = args->dst, *cosine = args->cosine, *sine = args->sine;
    int64_t H = src->shape[1], D = src->shape[2], half = cosine->shape[1], begin, end;
    bool contiguous = src->stride[2] == 1 && cosine->stride[1] == 1 && sine->stride[1] == 1;
    l4j_partition(src->shape[0], 1, thread, threads, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        rope_head head = {.cosine = (const float *)cosine->data + args->positions[m] * cosine->stride[0],
                          .sine = (const float *)sine->data + args->positions[m] * sine->stride[0],
                          .stride = src->stride[2],
                          .cosine_stride = cosine->stride[1],
                          .sine_stride = sine->stride[1],
                          .half = half,
                          .direction = direction};
        for (int64_t h = 0; h < H; h++) {
            head.src = (const float *)src->data + m * src->stride[0] + h * src->stride[1];
            head.dst = (float *)dst->data + m * dst->stride[0] + h * dst->stride[1];
            if (args->flags & L4J_ROPE_INTERLEAVED) {
                contiguous ? rope_neighbours(&head) : rope_pairs(&head, 0, 2, 1);
            } else {
                contiguous ? rope_halves(&head) : rope_pairs(&head, 0, 1, half);
            }
            if (head.dst == head.src) continue;
            for (int64_t d = 2 * half; d < D; d++) head.dst[d] = head.src[d * head.stride];
        }
    }
}

static void rope_forward_task(void *context, int thread, int threads) { rope_rows(context, 1, thread, threads); }
static void rope_backward_task(void *context, int thread, int threads) { rope_rows(context, -1, thread, threads); }

static double rope_work(const l4j_rope *args) {
    return (double)(args->src->shape[0] * args->src->shape[1] * args->src->shape[2]) * L4J_ELEMENT_WORK;
}

size_t L4J_NAME(rope_forward_workspace)(int threads, const l4j_rope *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(rope_forward)(l4j_queue *queue, const l4j_rope *args, void *workspace, l4j_error *error) {
    (void)workspace;
    l4j_status status = l4j_check_positions(args, error);
    if (status != L4J_OK) return status;
    l4j_run_work(queue, rope_work(args), rope_forward_task, (void *)args);
    return L4J_OK;
}

size_t L4J_NAME(rope_backward_workspace)(int threads, const l4j_rope *args) {
    (void)threads;
    (void)args;
    return 0;
}

l4j_status L4J_NAME(rope_backward)(l4j_queue *queue, const l4j_rope *args, void *workspace, l4j_error *error) {
    (void)workspace;
    l4j_status status = l4j_check_positions(args, error);
    if (status != L4J_OK) return status;
    l4j_run_work(queue, rope_work(args), rope_backward_task, (void *)args);
    return L4J_OK;
}
