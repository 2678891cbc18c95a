package io.lora4j.train.model;

/** A matrix [rows, columns] as what it does to vectors, in float64. */
interface LinearMap {
    int rows();

    int columns();

    /** Writes the product with a vector of {@code columns} numbers to one of {@code rows}. */
    void times(double[] x, double[] out);

    /** Writes the product of the transposed matrix with a vector of {@code rows} numbers to one of {@code columns}. */
    void transposedTimes(double[] y, double[] out);
}
