#include "support.h"

#include <atomic>
#include <cfenv>
#include <sys/wait.h>
#include <thread>

extern "C" {
struct l4j_pool;
typedef void (*l4j_task)(void *context, int thread, int threads);
l4j_pool *l4j_pool_create(int threads, int spin_us, l4j_error *error);
void l4j_pool_destroy(l4j_pool *pool);
void l4j_pool_run(l4j_pool *pool, l4j_task task, void *context);
void l4j_pool_barrier(l4j_pool *pool);
}

namespace {

struct Counts {
    l4j_pool *pool;
    std::vector<int64_t> runs;
    std::vector<int64_t> phase;
    std::atomic<int> wrong{0};
};

void count(void *context, int thread, int threads) {
    auto *c = static_cast<Counts *>(context);
    c->runs[static_cast<size_t>(thread)]++;
    for (int round = 0; round < 3; round++) {
        c->phase[static_cast<size_t>(thread)]++;
        l4j_pool_barrier(c->pool);
        for (int t = 0; t < threads; t++) { // everybody has reached this round and nobody has left it
            if (c->phase[static_cast<size_t>(t)] != c->phase[static_cast<size_t>(thread)]) c->wrong++;
        }
        l4j_pool_barrier(c->pool);
    }
}

// Every thread runs every task once and the barrier holds, spinning or sleeping.
TEST(QueueTest, PoolRunsEveryThreadAndBarriersHold) {
    for (int spin_us : {0, 50}) {
        for (int threads : {1, 2, 5, 16}) {
            l4j_error error = {};
            Counts c;
            c.pool = l4j_pool_create(threads, spin_us, &error);
            ASSERT_NE(nullptr, c.pool) << error.message;
            c.runs.assign(static_cast<size_t>(threads), 0);
            c.phase.assign(static_cast<size_t>(threads), 0);
            const int kRuns = 200;
            for (int i = 0; i < kRuns; i++) l4j_pool_run(c.pool, count, &c);
            l4j_pool_destroy(c.pool);
            for (int t = 0; t < threads; t++) EXPECT_EQ(kRuns, c.runs[static_cast<size_t>(t)]);
            EXPECT_EQ(0, c.wrong.load());
        }
    }
}

TEST(QueueTest, SleepingWorkersWakeUp) {
    l4j_error error = {};
    Counts c;
    c.pool = l4j_pool_create(3, 0, &error);
    ASSERT_NE(nullptr, c.pool);
    c.runs.assign(3, 0);
    c.phase.assign(3, 0);
    for (int i = 0; i < 5; i++) {
        usleep(2000);
        l4j_pool_run(c.pool, count, &c);
    }
    EXPECT_EQ(5, c.runs[2]);
    l4j_pool_destroy(c.pool);
}

TEST(QueueTest, ThreadsAreBoundedAndDefaulted) {
    l4j::Context context(L4J_ISA_REF, 3);
    EXPECT_EQ(3, l4j_queue_threads(context.queue()));
    l4j_error error = {};
    l4j_queue *queue = nullptr;
    l4j_queue_options options = {};
    options.struct_size = sizeof options;
    options.threads = 100000;
    EXPECT_EQ(L4J_EINVAL, l4j_queue_create(context.device(), &options, &queue, &error));
    EXPECT_STREQ("queue_create: threads is 100000, expected 0 (all CPUs) to 1024", error.message);
    options.threads = 0;
    options.flags = 1;
    EXPECT_EQ(L4J_EINVAL, l4j_queue_create(context.device(), &options, &queue, &error));
    EXPECT_STREQ("queue_create: flags or stream is set; expected 0 and NULL on the CPU", error.message);
    options.flags = 0;
    L4J_ASSERT_OK(l4j_queue_create(context.device(), &options, &queue, error));
    l4j_device_info info = {};
    info.struct_size = sizeof info;
    L4J_ASSERT_OK(l4j_device_query(context.device(), &info, error));
    EXPECT_EQ(info.logical_cpus, l4j_queue_threads(queue));
    EXPECT_EQ(L4J_EBUSY, l4j_device_close(context.device(), &error));
    L4J_ASSERT_OK(l4j_queue_synchronize(queue, error));
    L4J_ASSERT_OK(l4j_queue_poll(queue, error));
    L4J_ASSERT_OK(l4j_queue_destroy(queue, error));
}

// Rounding and subnormals of the caller change no bit and are the caller's again afterwards.
TEST(QueueTest, FloatingPointEnvironmentOfTheCallerDoesNotMatter) {
    std::vector<float> x(64, 1e-41f), y(64);
    float alpha = 0.75f, beta = 0;
    x[0] = 1.0f / 3;
    alpha = 1.0f / 3;
    l4j_tensor tx = l4j::tensor(x.data(), L4J_F32, {8, 8}), ty = l4j::tensor(y.data(), L4J_F32, {8, 8});
    l4j_axpby args = {};
    args.struct_size = sizeof args;
    args.alpha = &alpha;
    args.beta = &beta;
    args.x = &tx;
    args.y = &ty;
    for (int32_t isa : l4j::tiers()) {
        l4j::Context plain(isa, 2);
        L4J_ASSERT_OK(l4j_axpby_forward(plain.queue(), &args, nullptr, 0, error));
        std::vector<float> expected = y;
        fenv_t saved;
        fegetenv(&saved);
        fesetround(FE_UPWARD);
#if defined(__x86_64__)
        __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040); // flush subnormals to zero
        unsigned before = __builtin_ia32_stmxcsr();
#endif
        l4j_error error = {};
        l4j_status status;
        {
            l4j::Context strange(isa, 2);
            status = l4j_axpby_forward(strange.queue(), &args, nullptr, 0, &error);
        }
#if defined(__x86_64__)
        unsigned after = __builtin_ia32_stmxcsr();
#endif
        int rounding = fegetround();
        fesetenv(&saved);
        EXPECT_EQ(L4J_OK, status) << error.message;
        EXPECT_EQ(FE_UPWARD, rounding);
#if defined(__x86_64__)
        EXPECT_EQ(before, after);
#endif
        EXPECT_TRUE(l4j::same_bits(expected, y)) << l4j::tier_name(isa);
    }
}

// A second thread that calls while an operation runs gets L4J_EBUSY, and nothing else happens to it.
TEST(QueueTest, OneOperationAtATime) {
    l4j::Context context(L4J_ISA_REF, 2);
    const int64_t n = 1 << 22;
    std::vector<float> x(n, 1.0f), y(n, 0.0f);
    float alpha = 1.0f, beta = 1.0f;
    l4j_tensor tx = l4j::tensor(x.data(), L4J_F32, {1, n}), ty = l4j::tensor(y.data(), L4J_F32, {1, n});
    l4j_axpby args = {};
    args.struct_size = sizeof args;
    args.alpha = &alpha;
    args.beta = &beta;
    args.x = &tx;
    args.y = &ty;
    std::atomic<int> done{0}, busy{0}, failed{0};
    auto work = [&] {
        for (int i = 0; i < 20; i++) {
            l4j_error error = {};
            l4j_status status = L4J_RUN(axpby_forward, context.queue(), &args)(&error);
            if (status == L4J_OK)
                done++;
            else if (status == L4J_EBUSY)
                busy++;
            else
                failed++;
        }
    };
    std::thread other(work);
    work();
    other.join();
    EXPECT_EQ(0, failed.load());
    EXPECT_EQ(40, done.load() + busy.load());
    EXPECT_EQ(static_cast<float>(done.load()), y[0]);
    EXPECT_EQ(static_cast<float>(done.load()), y[n - 1]);
}

// Adds `n` ones to y on a queue of one thread: long enough to be watched by another.
struct LongOperation {
    explicit LongOperation(int64_t n) : x(static_cast<size_t>(n), 1.0f), y(static_cast<size_t>(n), 0.0f) {
        tx = l4j::tensor(x.data(), L4J_F32, {1, n});
        ty = l4j::tensor(y.data(), L4J_F32, {1, n});
        args.struct_size = sizeof args;
        args.alpha = args.beta = &one;
        args.x = &tx;
        args.y = &ty;
    }
    l4j_status run(l4j_queue *queue) { return l4j_axpby_forward(queue, &args, nullptr, 0, nullptr); }
    std::vector<float> x, y;
    float one = 1.0f;
    l4j_tensor tx = {}, ty = {};
    l4j_axpby args = {};
};

// synchronize waits for what another thread has begun: a DLPack import may be released after it.
TEST(QueueTest, SynchronizeWaitsForAnotherThread) {
    l4j::Context context(L4J_ISA_REF, 1);
    LongOperation work(1 << 22);
    std::atomic<bool> done{false};
    std::thread other([&] {
        work.run(context.queue());
        done = true;
    });
    l4j_error error = {};
    while (l4j_queue_poll(context.queue(), &error) == L4J_OK && !done) {
    }
    L4J_ASSERT_OK(l4j_queue_synchronize(context.queue(), error));
    float last = work.y.back();
    other.join();
    EXPECT_EQ(1.0f, last);
}

// Asking whether a queue is idle never makes it busy for the thread that works on it.
TEST(QueueTest, PollDisturbsNobody) {
    l4j::Context context(L4J_ISA_REF, 1);
    LongOperation work(1);
    std::atomic<bool> stop{false};
    std::thread other([&] {
        while (!stop) l4j_queue_poll(context.queue(), nullptr);
    });
    int failed = 0;
    for (int i = 0; i < 20000; i++) failed += work.run(context.queue()) != L4J_OK;
    stop = true;
    other.join();
    EXPECT_EQ(0, failed);
}

// A child process has none of its parent's threads: their queue says so instead of waiting for ever, and can be destroyed.
TEST(QueueTest, QueuesDoNotSurviveFork) {
    for (int threads : {1, 3}) {
        l4j::Context context(L4J_ISA_REF, threads);
        LongOperation work(100);
        ASSERT_EQ(L4J_OK, work.run(context.queue()));
        pid_t child = fork();
        ASSERT_NE(-1, child);
        if (child == 0) {
            alarm(20);
            l4j_error error = {};
            l4j_status expected = threads == 1 ? L4J_OK : L4J_EINVAL;
            l4j_status status = l4j_axpby_forward(context.queue(), &work.args, nullptr, 0, &error);
            bool named = threads == 1 || strstr(error.message, "axpby_forward: the queue's threads did not survive");
            _exit(status == expected && named && l4j_queue_destroy(context.queue(), &error) == L4J_OK ? 0 : 1);
        }
        int status = -1;
        ASSERT_EQ(child, waitpid(child, &status, 0));
        EXPECT_EQ(0, status) << threads << " threads";
        EXPECT_EQ(L4J_OK, work.run(context.queue())); // the parent's go on
    }
}

// What one thread does alone because it is little has the bits of what all threads do.
TEST(QueueTest, LittleWorkGivesTheSameBits) {
    const int64_t m = 7, k = 40, n = 50;
    for (int32_t isa : l4j::tiers()) {
        std::vector<float> results[2];
        for (int alone = 0; alone < 2; alone++) {
            l4j::Context context(isa, 3);
            l4j_queue_run_alone_below(context.queue(), alone ? INT64_MAX : 0);
            l4j::Random random(5);
            l4j::TestWeight weight(context, n, k, random.floats(n * k));
            l4j::Operand x(isa, {m, k}), y(isa, {m, n}), s(isa, {m, 3}), a(isa, {3, k}), b(isa, {n, 3});
            x.fill(random.floats(m * k));
            a.fill(random.floats(3 * k));
            b.fill(random.floats(n * 3));
            float scaling = 0.5f;
            const l4j_weight *weights[] = {weight.get()};
            l4j_lora args = {};
            args.struct_size = sizeof args;
            args.projection_count = args.adapter_count = 1;
            args.x = x.get();
            args.weights = weights;
            args.a = a.get();
            args.b = b.get();
            args.scaling = &scaling;
            args.y = y.get();
            args.s = s.get();
            L4J_ASSERT_OK(L4J_RUN(lora_forward, context.queue(), &args)(error));
            results[alone] = y.floats();
        }
        EXPECT_TRUE(l4j::same_bits(results[0], results[1])) << l4j::tier_name(isa);
    }
}

} // namespace
