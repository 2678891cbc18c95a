#include "cublas.cuh"

#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <mutex>

namespace l4j {

/* ---- what is used of cublasLt.h, which need not be there when this is compiled ---- */

using Status = int; /* 0: success */
using Handle = void *;
using Desc = void *;   /* of a product */
using Layout = void *; /* of a matrix, by columns */
using Preference = void *;
struct Algorithm {
    uint64_t data[8];
};
struct Heuristic {
    Algorithm algorithm;
    size_t workspace;
    Status status;
    float waves;
    int reserved[4];
};
enum { kCompute32F = 68, kReal32F = 0, kReal16F = 2, kReal16BF = 14, kTranspose = 1, kTransA = 3 };
enum { kWorkspaceBytes = 1, kReductionSchemes = 3, kAlignmentOfA = 5, kAlignmentOfD = 8 };

struct Library {
    Status (*create)(Handle *);
    Status (*desc_create)(Desc *, int compute, int scale);
    Status (*desc_set)(Desc, int attribute, const void *, size_t);
    Status (*desc_destroy)(Desc);
    Status (*layout_create)(Layout *, int type, uint64_t rows, uint64_t cols, int64_t ld);
    Status (*layout_destroy)(Layout);
    Status (*preference_create)(Preference *);
    Status (*preference_set)(Preference, int attribute, const void *, size_t);
    Status (*preference_destroy)(Preference);
    Status (*heuristic)(Handle, Desc, Layout a, Layout b, Layout c, Layout d, Preference, int asked, Heuristic *,
                        int *);
    Status (*matmul)(Handle, Desc, const void *alpha, const void *a, Layout, const void *b, Layout, const void *beta,
                     const void *c, Layout, void *d, Layout, const Algorithm *, void *workspace, size_t, cudaStream_t);
    bool there;
};

static Library open_library() {
    Library l = {};
    const char *given = getenv("LORA4J_CUBLAS");
    void *file = nullptr;
    if (given && *given) {
        if (strcmp(given, "off") != 0) file = dlopen(given, RTLD_NOW | RTLD_LOCAL);
    } else {
        for (const char *name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
            if (!file) file = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        }
    }
    if (!file) return l;
    l.there = true;
    auto find = [&](auto &function, const char *name) {
        void *symbol = dlsym(file, name);
        memcpy(&function, &symbol, sizeof symbol);
        l.there &= symbol != nullptr;
    };
    find(l.create, "cublasLtCreate");
    find(l.desc_create, "cublasLtMatmulDescCreate");
    find(l.desc_set, "cublasLtMatmulDescSetAttribute");
    find(l.desc_destroy, "cublasLtMatmulDescDestroy");
    find(l.layout_create, "cublasLtMatrixLayoutCreate");
    find(l.layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(l.preference_create, "cublasLtMatmulPreferenceCreate");
    find(l.preference_set, "cublasLtMatmulPreferenceSetAttribute");
    find(l.preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(l.heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(l.matmul, "cublasLtMatmul");
    return l;
}

/* ---- plans: asked for once, because asking takes longer than a small product ---- */

struct Key {
    int64_t M, N, K, ldx, ldw, ldy;
    int32_t device, dtype, down;
};
struct Plan {
    Key key;
    Desc desc;
    Layout w, x, y;
    Algorithm algorithm;
    bool usable;
};

constexpr int kDevices = 64, kPlans = 512; /* the oldest plan makes room for another */

struct State {
    std::mutex mutex;
    Library library = open_library();
    Handle handles[kDevices] = {};
    Plan plans[kPlans] = {};
    int count = 0, next = 0;
};
static State &state() {
    static State *one = new State; /* never destroyed: a queue may outlive this library's static objects */
    return *one;
}

/* In columns, as cuBLASLt counts: yᵀ[N, M] = wᵀ · xᵀ. */
static Plan make_plan(const Library &l, Handle handle, const Key &key) {
    Plan plan = {};
    plan.key = key;
    int type = key.dtype == L4J_BF16 ? kReal16BF : kReal16F, transpose = kTranspose;
    uint64_t none = 0;
    uint32_t no_reduction = 0, alignment = 16;
    Preference preference = nullptr;
    Heuristic found = {};
    int count = 0;
    bool good = l.desc_create(&plan.desc, kCompute32F, kReal32F) == 0 && l.preference_create(&preference) == 0;
    if (good && !key.down) good = l.desc_set(plan.desc, kTransA, &transpose, sizeof transpose) == 0;
    int64_t rows = key.down ? key.N : key.K, cols = key.down ? key.K : key.N;
    good = good && l.layout_create(&plan.w, type, rows, cols, key.ldw) == 0 &&
           l.layout_create(&plan.x, type, key.K, key.M, key.ldx) == 0 &&
           l.layout_create(&plan.y, type, key.N, key.M, key.ldy) == 0 &&
           l.preference_set(preference, kWorkspaceBytes, &none, sizeof none) == 0 &&
           l.preference_set(preference, kReductionSchemes, &no_reduction, sizeof no_reduction) == 0;
    for (int a = kAlignmentOfA; a <= kAlignmentOfD; a++) {
        good = good && l.preference_set(preference, a, &alignment, sizeof alignment) == 0;
    }
    plan.usable = good &&
                  l.heuristic(handle, plan.desc, plan.w, plan.x, plan.y, plan.y, preference, 1, &found, &count) == 0 &&
                  count == 1 && found.status == 0;
    plan.algorithm = found.algorithm;
    if (preference) l.preference_destroy(preference);
    return plan;
}

static void release(const Library &l, const Plan &plan) {
    if (plan.desc) l.desc_destroy(plan.desc);
    for (Layout layout : {plan.w, plan.x, plan.y}) {
        if (layout) l.layout_destroy(layout);
    }
}

/* With the state's mutex held. */
static const Plan *find_plan(State &s, const l4j_queue *queue, const CublasProduct &p) {
    int32_t device = queue->device->id;
    if (!s.library.there || device >= kDevices) return nullptr;
    Handle &handle = s.handles[device];
    if (!handle && s.library.create(&handle) != 0) return nullptr;
    Key key = {}; /* padding too */
    key.M = p.M;
    key.N = p.N;
    key.K = p.K;
    key.ldx = p.x.s0;
    key.ldw = p.w.s0;
    key.ldy = p.y.s0;
    key.device = device;
    key.dtype = p.x.dtype;
    key.down = p.down;
    for (int i = 0; i < s.count; i++) {
        if (memcmp(&s.plans[i].key, &key, sizeof key) == 0) return &s.plans[i];
    }
    Plan &plan = s.plans[s.next];
    if (s.count == kPlans) release(s.library, plan);
    plan = make_plan(s.library, handle, key);
    s.next = (s.next + 1) % kPlans;
    if (s.count < kPlans) s.count++;
    return &plan;
}

bool cublas_has(const l4j_queue *queue, const CublasProduct &p) {
    State &s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
    const Plan *plan = find_plan(s, queue, p);
    return plan && plan->usable;
}

cudaError_t cublas_multiply(const l4j_queue *queue, const CublasProduct &p) {
    State &s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
    const Plan *plan = find_plan(s, queue, p);
    float one = 1.0f, beta = p.add ? 1.0f : 0.0f;
    if (!plan ||
        s.library.matmul(s.handles[queue->device->id], plan->desc, &one, p.w.data, plan->w, p.x.data, plan->x, &beta,
                         p.y.data, plan->y, p.y.data, plan->y, &plan->algorithm, nullptr, 0, stream_of(queue)) != 0) {
        return cudaErrorLaunchFailure;
    }
    return cudaSuccess;
}

} // namespace l4j
