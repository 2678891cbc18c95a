/* What the machine offers: ISA tier, CPUs, memory. */
#ifndef L4J_FEATURES_H
#define L4J_FEATURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Best tier that the processor has and the operating system has switched on (CPUID and XCR0): L4J_ISA_... */
int32_t l4j_best_isa(void);
/* Whether it has AVX512_VNNI; asked where the best tier is L4J_ISA_AVX512 or above. */
bool l4j_has_avx512_vnni(void);
/* Whether it has AMX-INT8; asked where the best tier is L4J_ISA_AMX_BF16. */
bool l4j_has_amx_int8(void);
/* Brand string of the processor. */
void l4j_cpu_name(char *name, size_t capacity);
/* CPUs that this process may use: affinity mask, then the cgroup's quota. At least 1. */
int32_t l4j_logical_cpus(void);
/* Physical memory in bytes, or the cgroup's limit where that is lower. */
int64_t l4j_memory_bytes(void);

#endif
