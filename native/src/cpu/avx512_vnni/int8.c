/* Products of bytes by VPDPBUSD. */
#define L4J_TIER avx512_vnni
#define INT8_VNNI
#include "../simd/int8.c"
