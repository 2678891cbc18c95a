/* Checks of what arguments point to and a step may change: made by the kernels when they run, before anything is written, so that
   a workspace can be asked for earlier. */
#ifndef L4J_VALUES_H
#define L4J_VALUES_H

#include "internal.h"

enum { L4J_ATTENTION_MAX_D = 256 }; /* largest head dimension */

l4j_status l4j_check_lora(const l4j_lora *args, const char *op, l4j_error *error);
/* The adapter of each row, -1 where it has none: row[m], from checked segments. */
void l4j_lora_rows(const l4j_lora *args, int32_t *row);
l4j_status l4j_check_ids(const l4j_embedding *args, bool backward, l4j_error *error);
l4j_status l4j_check_targets(const l4j_linear_cross_entropy *args, l4j_error *error);
l4j_status l4j_check_positions(const l4j_rope *args, l4j_error *error);
l4j_status l4j_check_sequences(const l4j_attention *args, bool backward, l4j_error *error);
l4j_status l4j_check_adamw_hyper(const l4j_adamw *args, l4j_error *error);
l4j_status l4j_check_sample_hyper(const l4j_sample *args, l4j_error *error);

#endif
