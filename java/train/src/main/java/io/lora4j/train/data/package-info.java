/** From JSONL to packed batches: rows, loss masks, row order, packing. */
@NullMarked
package io.lora4j.train.data;

import org.jspecify.annotations.NullMarked;
