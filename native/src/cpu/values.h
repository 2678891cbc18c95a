/* Checks of what arguments point to and a step may change: made by the kernels when they run, before anything is written. */
#ifndef L4J_VALUES_H
#define L4J_VALUES_H

#include "internal.h"

enum { L4J_ATTENTION_MAX_D = 256 }; /* largest head dimension */

l4j_status l4j_check_positions(const l4j_rope *args, l4j_error *error);
l4j_status l4j_check_sequences(const l4j_attention *args, bool backward, l4j_error *error);
l4j_status l4j_check_adamw_hyper(const l4j_adamw *args, l4j_error *error);
l4j_status l4j_check_sample_hyper(const l4j_sample *args, l4j_error *error);

#endif
