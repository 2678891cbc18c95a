#include "features.h"

#include <lora4j/lora4j.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t xcr0(void) {
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* AMX-TILE, AMX-BF16, the state of both switched on, and Linux (5.16 or later) lets this process use the tiles' 8 KiB. */
static bool has_amx_bf16(uint32_t edx, uint64_t enabled) {
    const uint32_t bf16 = 1u << 22, tile = 1u << 24;
    const uint64_t state = 3u << 17; /* XTILECFG and XTILEDATA */
    if ((edx & (bf16 | tile)) != (bf16 | tile) || (enabled & state) != state) return false;
    enum {
        REQUEST_PERMISSION = 0x1023,
        XTILEDATA = 18
    }; /* arch_prctl(ARCH_REQ_XCOMP_PERM, ...); for the whole process */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, XTILEDATA) == 0;
}

int32_t l4j_best_isa(void) {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return L4J_ISA_REF;
    const uint32_t fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    if ((c & (fma | osxsave | avx | f16c)) != (fma | osxsave | avx | f16c)) return L4J_ISA_REF;
    uint64_t enabled = xcr0();
    if ((enabled & 0x6) != 0x6) return L4J_ISA_REF; /* XMM and YMM state */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return L4J_ISA_REF;
    if (!(b & (1u << 5))) return L4J_ISA_REF; /* AVX2 */
    const uint32_t f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
    if ((b & (f | dq | bw | vl)) != (f | dq | bw | vl) || (enabled & 0xE6) != 0xE6) return L4J_ISA_AVX2;
    uint32_t leaves = a, more = 0;
    if (has_amx_bf16(d, enabled)) return L4J_ISA_AMX_BF16;
    if (leaves >= 1) __get_cpuid_count(7, 1, &more, &b, &c, &d);
    return more & (1u << 5) ? L4J_ISA_AVX512_BF16 : L4J_ISA_AVX512;
}

bool l4j_has_avx512_vnni(void) {
    uint32_t a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && c & (1u << 11);
}

bool l4j_has_amx_int8(void) {
    uint32_t a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & (1u << 25);
}

void l4j_cpu_name(char *name, size_t capacity) {
    uint32_t r[12] = {0};
    for (uint32_t i = 0; i < 3; i++) {
        if (!__get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3])) break;
    }
    char brand[sizeof(r) + 1] = {0};
    memcpy(brand, r, sizeof(r));
    const char *start = brand + strspn(brand, " ");
    snprintf(name, capacity, "%s", *start ? start : "x86-64");
    for (size_t n = strlen(name); n > 0 && name[n - 1] == ' '; n--) name[n - 1] = 0;
}
#else
int32_t l4j_best_isa(void) { return L4J_ISA_REF; }
bool l4j_has_avx512_vnni(void) { return false; }
bool l4j_has_amx_int8(void) { return false; }
void l4j_cpu_name(char *name, size_t capacity) { snprintf(name, capacity, "unknown"); }
#endif

/* Calls read(folder, state) for the process's cgroup (version 2) and each of its parents. */
static void each_cgroup(void (*read)(const char *folder, void *state), void *state) {
    char line[1024], folder[1200];
    FILE *f = fopen("/proc/self/cgroup", "r");
    if (!f) return;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::/", 4) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(folder, sizeof folder, "/sys/fs/cgroup%s", line + 3);
        for (size_t root = strlen("/sys/fs/cgroup");;) {
            read(folder, state);
            char *slash = strrchr(folder, '/');
            if (!slash || (size_t)(slash - folder) < root) break;
            *slash = 0;
        }
        break;
    }
    fclose(f);
}

static FILE *open_in(const char *folder, const char *file) {
    char path[1300];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return fopen(path, "r");
}

static void read_quota(const char *folder, void *state) {
    FILE *f = open_in(folder, "cpu.max");
    if (!f) return;
    double quota, period;
    if (fscanf(f, "%lf %lf", &quota, &period) == 2 && period > 0 && quota > 0) {
        int32_t cpus = (int32_t)((quota + period - 1) / period), *best = state;
        if (cpus >= 1 && cpus < *best) *best = cpus;
    }
    fclose(f);
}

int32_t l4j_logical_cpus(void) {
    int32_t cpus;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        cpus = CPU_COUNT(&set);
    } else { /* more CPUs than cpu_set_t holds */
        cpus = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    }
    if (cpus < 1) cpus = 1;
    each_cgroup(read_quota, &cpus);
    return cpus;
}

static void read_limit(const char *folder, void *state) {
    FILE *f = open_in(folder, "memory.max");
    if (!f) return;
    long long limit;
    int64_t *best = state;
    if (fscanf(f, "%lld", &limit) == 1 && limit > 0 && limit < *best) *best = limit;
    fclose(f);
}

int64_t l4j_memory_bytes(void) {
    int64_t bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE);
    each_cgroup(read_limit, &bytes);
    return bytes;
}
