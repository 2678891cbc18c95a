package io.lora4j.train.model;

/** How a model holds its base weights. */
public enum WeightMode {
    /** The kernels read the mapped file as it is: nothing is copied, and processes share the pages. */
    BORROW,
    /** The kernels have a copy in their own layout, which is faster to compute with; the file's pages leave memory as they are packed. */
    PACK
}
