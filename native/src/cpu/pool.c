/*
 * The threads of a queue. Every run gives the same task to all threads; thread 0 is the caller. Waiting spins for a while, then
 * sleeps on a futex, so that short operations follow one another without system calls and an idle pool costs nothing.
 */
#include "internal.h"

#include <errno.h>
#include <fenv.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A word that threads wait on, alone on its cache line, with the number of threads asleep on it. */
typedef struct {
    _Alignas(64) atomic_uint word;
    atomic_int sleepers;
} waitword;

typedef struct {
    l4j_pool *pool;
    int thread;
} worker_arg;

struct l4j_pool {
    waitword epoch;   /* raised by each run: workers wait for it */
    waitword pending; /* workers still running: the caller waits for 0 */
    waitword turn;    /* generation of the barrier */
    _Alignas(64) atomic_int arrived;
    _Alignas(64) _Atomic uint64_t claims; /* round << 32 | units of it that are taken */
    l4j_task task;
    void *context;
    atomic_bool stop;
    bool alone; /* the task at hand runs on the caller only, who alone reads this */
    int threads;
    unsigned generation; /* of the process that has the threads */
    int64_t spin_ns;
    pthread_t *workers;
    worker_arg *args;
};

/* Counts the forks that lead to this process: a child has none of its parent's threads. */
static atomic_uint generation;
static void next_generation(void) { atomic_fetch_add(&generation, 1); }
static void watch_forks(void) { pthread_atfork(NULL, NULL, next_generation); }

static inline void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void sleep_while(waitword *w, unsigned value) {
    atomic_fetch_add(&w->sleepers, 1);
    while (atomic_load(&w->word) == value) {
        syscall(SYS_futex, &w->word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
    }
    atomic_fetch_sub(&w->sleepers, 1);
}

/* Waits until the word differs from `value`; returns what it is then. */
static unsigned wait_while(waitword *w, unsigned value, int64_t spin_ns) {
    unsigned seen = atomic_load_explicit(&w->word, memory_order_acquire);
    if (seen != value) return seen;
    if (spin_ns > 0) {
        int64_t end = now_ns() + spin_ns;
        do {
            for (int i = 0; i < 64; i++) {
                seen = atomic_load_explicit(&w->word, memory_order_acquire);
                if (seen != value) return seen;
                cpu_relax();
            }
        } while (now_ns() < end);
    }
    sleep_while(w, value);
    return atomic_load_explicit(&w->word, memory_order_acquire);
}

static void wake(waitword *w) {
    if (atomic_load(&w->sleepers) > 0) syscall(SYS_futex, &w->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *worker_main(void *p) {
    l4j_pool *pool = ((worker_arg *)p)->pool;
    int thread = ((worker_arg *)p)->thread;
    unsigned seen = 0;
    fesetenv(FE_DFL_ENV); /* not what the creator of the queue happened to have */
    for (;;) {
        seen = wait_while(&pool->epoch, seen, pool->spin_ns);
        if (atomic_load(&pool->stop)) return NULL;
        pool->task(pool->context, thread, pool->threads);
        if (atomic_fetch_sub(&pool->pending.word, 1) == 1) wake(&pool->pending);
    }
}

l4j_pool *l4j_pool_create(int threads, int spin_us, l4j_error *error) {
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    pthread_once(&watched, watch_forks);
    l4j_pool *pool = aligned_alloc(64, (sizeof(l4j_pool) + 63) & ~(size_t)63);
    if (!pool) {
        l4j_fail(error, L4J_ENOMEM, "queue: no memory for a pool of %d threads", threads);
        return NULL;
    }
    *pool = (l4j_pool){.threads = 1, .generation = atomic_load(&generation), .spin_ns = (int64_t)spin_us * 1000};
    pool->workers = calloc((size_t)threads, sizeof(pthread_t));
    pool->args = calloc((size_t)threads, sizeof(worker_arg));
    if (!pool->workers || !pool->args) {
        l4j_pool_destroy(pool);
        l4j_fail(error, L4J_ENOMEM, "queue: no memory for a pool of %d threads", threads);
        return NULL;
    }
    sigset_t all, callers; /* signals are for the threads of the application: ours inherit that all are blocked */
    sigfillset(&all);
    for (int t = 1; t < threads; t++) {
        pool->args[t] = (worker_arg){pool, t};
        pthread_sigmask(SIG_SETMASK, &all, &callers);
        int rc = pthread_create(&pool->workers[t], NULL, worker_main, &pool->args[t]);
        pthread_sigmask(SIG_SETMASK, &callers, NULL);
        if (rc != 0) {
            l4j_pool_destroy(pool);
            l4j_fail(error, L4J_ENOMEM, "queue: thread %d of %d could not be started (%s); ask for fewer threads",
                     t + 1, threads, rc == EAGAIN ? "limit on threads reached" : "pthread_create failed");
            return NULL;
        }
        pool->threads = t + 1; /* no task runs before the loop is over: workers see the final value */
    }
    return pool;
}

bool l4j_pool_lost(const l4j_pool *pool) { return pool->threads > 1 && pool->generation != atomic_load(&generation); }

void l4j_pool_destroy(l4j_pool *pool) {
    if (!pool) return;
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->epoch.word, 1);
    wake(&pool->epoch);
    for (int t = 1; t < pool->threads && !l4j_pool_lost(pool); t++) pthread_join(pool->workers[t], NULL);
    free(pool->workers);
    free(pool->args);
    free(pool);
}

void l4j_pool_run(l4j_pool *pool, l4j_task task, void *context) {
    if (pool->threads == 1) {
        task(context, 0, 1);
        return;
    }
    pool->task = task;
    pool->context = context;
    atomic_store(&pool->claims, 0);
    atomic_store(&pool->pending.word, (unsigned)pool->threads - 1);
    atomic_fetch_add(&pool->epoch.word, 1);
    wake(&pool->epoch);
    task(context, 0, pool->threads);
    for (unsigned left; (left = atomic_load_explicit(&pool->pending.word, memory_order_acquire)) != 0;) {
        wait_while(&pool->pending, left, pool->spin_ns);
    }
}

void l4j_pool_run_alone(l4j_pool *pool, l4j_task task, void *context) {
    pool->alone = true;
    task(context, 0, 1);
    pool->alone = false;
}

void l4j_pool_barrier(l4j_pool *pool) {
    if (pool->threads == 1 || pool->alone) return;
    unsigned turn = atomic_load(&pool->turn.word);
    if (atomic_fetch_add(&pool->arrived, 1) == pool->threads - 1) {
        atomic_store(&pool->arrived, 0);
        atomic_fetch_add(&pool->turn.word, 1);
        wake(&pool->turn);
    } else {
        wait_while(&pool->turn, turn, pool->spin_ns);
    }
}

bool l4j_pool_claim(l4j_pool *pool, unsigned round, int64_t total, int64_t most, int64_t *begin, int64_t *end) {
    uint64_t seen = atomic_load(&pool->claims);
    for (;;) {
        unsigned at = (unsigned)(seen >> 32); /* a later round: whoever went on found this one taken */
        int64_t next = at < round ? 0 : at == round ? (int64_t)(uint32_t)seen : total;
        if (next >= total) return false;
        int64_t size = l4j_max64(1, l4j_min64(most, (total - next) / (2 * pool->threads)));
        if (atomic_compare_exchange_weak(&pool->claims, &seen, (uint64_t)round << 32 | (uint64_t)(next + size))) {
            *begin = next;
            *end = next + size;
            return true;
        }
    }
}
