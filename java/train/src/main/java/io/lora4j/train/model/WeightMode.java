package io.lora4j.train.model;

/** How a model holds its base weights. */
public enum WeightMode {
    /** The kernels read the mapped file as it is: nothing is copied, and processes share the pages. */
    BORROW,
    /** The kernels have a copy in their own layout; the file is unmapped. Reading it row by row (decoding) is faster. */
    PACK
}
