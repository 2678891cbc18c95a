/*
 * A program that uses an installed lora4j as any C program would: a LoRA linear, forward and backward, for three steps with the
 * same argument struct; only the memory that it points to changes. Compares with numbers made by expected.py.
 */
#include <lora4j/lora4j.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { M = 3, K = 5, N = 4, R = 2 };

static const double expected_y[] = {0.04296875, 0.49609375, -0.5625,    0.5,        -0.390625, -0.53125,
                                    0.96875,    0.015625,   0.12109375, 0.16015625, -0.25,     -0.2109375};
static const double expected_dx[] = {0.3046875, 0.4609375,   -0.171875,   -0.015625,  -0.2421875,
                                     0.1328125, -0.01171875, -0.11328125, -0.2578125, 0.046875,
                                     -0.234375, -0.03515625, -0.19140625, 0.0078125,  0.2578125};
static const double expected_da[] = {-0.2265625, -0.2265625, 0.203125,    0.03125,  -0.2265625,
                                     0.21875,    0.0078125,  -0.16015625, 0.015625, 0.1484375};
static const double expected_db[] = {-0.1953125, 0.00390625, 0.0546875,   -0.0078125,
                                     0.1875,     -0.1171875, -0.16796875, 0.18359375};

/* ((a i + b j) mod m - (m - 1)/2) / 8, times `factor` */
static void pattern(float *out, int rows, int cols, int a, int b, int m, float factor) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) out[i * cols + j] = factor * (float)((a * i + b * j) % m - (m - 1) / 2) / 8.0f;
}

static l4j_tensor matrix(float *data, int rows, int cols) {
    l4j_tensor t = {0};
    t.data = data;
    t.dtype = L4J_F32;
    t.device_type = L4J_DEVICE_CPU;
    t.ndim = 2;
    t.shape[0] = rows;
    t.shape[1] = cols;
    t.stride[0] = cols;
    t.stride[1] = 1;
    return t;
}

static void check(l4j_status status, const l4j_error *error) {
    if (status == L4J_OK) return;
    fprintf(stderr, "%s: %s\n", l4j_status_name(status), error->message);
    exit(1);
}

static void compare(const char *name, const float *found, const double *expected, int n, double factor) {
    for (int i = 0; i < n; i++) {
        if (!(fabs(found[i] - factor * expected[i]) <= 1e-6 * (1 + fabs(factor * expected[i])))) {
            fprintf(stderr, "%s[%d] is %.9g, expected %.9g\n", name, i, found[i], factor * expected[i]);
            exit(1);
        }
    }
}

int main(void) {
    l4j_error error = {0};
    l4j_device *device;
    l4j_queue *queue;
    if (l4j_abi_version() != L4J_ABI_VERSION) {
        fprintf(stderr, "the library has ABI %u, this program was compiled for %d\n", (unsigned)l4j_abi_version(),
                L4J_ABI_VERSION);
        return 1;
    }
    check(l4j_device_open(NULL, &device, &error), &error);
    check(l4j_queue_create(device, NULL, &queue, &error), &error);

    float x[M * K], w[N * K], a[R * K], b[N * R], y[M * N], s[M * R];
    float dy[M * N], dx[M * K], da[R * K] = {0}, db[N * R] = {0}, scaling = 2.0f;
    pattern(w, N, K, 5, 2, 13, 1);
    pattern(a, R, K, 3, 4, 7, 1);
    pattern(b, N, R, 2, 5, 9, 1);
    pattern(dy, M, N, 4, 7, 5, 1);

    l4j_tensor tw = matrix(w, N, K);
    int32_t role = L4J_ROLE_VALUES;
    l4j_weight_options options = {0};
    options.struct_size = sizeof options;
    options.scheme = L4J_SCHEME_DENSE;
    options.mode = L4J_WEIGHT_BORROW;
    options.rows = N;
    options.cols = K;
    options.part_count = 1;
    options.part_roles = &role;
    options.part_values = &tw;
    l4j_weight *weight;
    check(l4j_weight_create(device, queue, &options, &weight, &error), &error);

    l4j_tensor tx = matrix(x, M, K), ta = matrix(a, R, K), tb = matrix(b, N, R), ty = matrix(y, M, N),
               ts = matrix(s, M, R);
    l4j_tensor tdy = matrix(dy, M, N), tdx = matrix(dx, M, K), tda = matrix(da, R, K), tdb = matrix(db, N, R);
    const l4j_weight *weights[1] = {weight};
    l4j_lora lora = {0};
    lora.struct_size = sizeof lora;
    lora.flags = L4J_LORA_ACCUMULATE_GRADS;
    lora.projection_count = 1;
    lora.adapter_count = 1;
    lora.x = &tx;
    lora.weights = weights;
    lora.a = &ta;
    lora.b = &tb;
    lora.scaling = &scaling;
    lora.y = &ty;
    lora.s = &ts;
    lora.dy = &tdy;
    lora.dx = &tdx;
    lora.da = &tda;
    lora.db = &tdb;

    size_t forward_bytes, backward_bytes;
    check(l4j_lora_forward_workspace(queue, &lora, &forward_bytes, &error), &error);
    check(l4j_lora_backward_workspace(queue, &lora, &backward_bytes, &error), &error);
    size_t bytes = forward_bytes > backward_bytes ? forward_bytes : backward_bytes;
    void *workspace = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!workspace) return 1;

    double seen = 0; /* x is scaled by 1, 2, 3: y follows, da and db add up */
    for (int step = 1; step <= 3; step++) {
        pattern(x, M, K, 7, 3, 11, (float)step);
        seen += step;
        check(l4j_lora_forward(queue, &lora, workspace, bytes, &error), &error);
        check(l4j_lora_backward(queue, &lora, workspace, bytes, &error), &error);
        compare("y", y, expected_y, M * N, step);
        compare("dx", dx, expected_dx, M * K, 1);
        compare("da", da, expected_da, R * K, seen);
        compare("db", db, expected_db, N * R, seen);
    }

    free(workspace);
    check(l4j_weight_destroy(weight, &error), &error);
    check(l4j_queue_destroy(queue, &error), &error);
    check(l4j_device_close(device, &error), &error);
    printf("%s: forward and backward agree\n", l4j_build_info());
    return 0;
}
