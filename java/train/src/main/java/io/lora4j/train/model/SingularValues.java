package io.lora4j.train.model;

import java.util.Arrays;

/**
 * The largest singular values of a matrix W [N, K] and their vectors: W ≈ Σ σᵢ uᵢ vᵢᵀ, largest first. Where σ is as good as zero, it is
 * zero and so are its vectors. Of the two signs that a pair of vectors can have, the one at which the largest number of u is positive.
 *
 * @param values σ, [r]
 * @param left u, r vectors of N numbers
 * @param right v, r vectors of K numbers
 */
record SingularValues(double[] values, double[][] left, double[][] right) {
    /** As the vectors come from eigenvalues σ², numbers below this part of the largest σ are rounding. */
    private static final double NOTHING = 1e-7;

    /** Two digits beyond those of a float32, which is what becomes of the vectors. */
    private static final double TOLERANCE = 1e-9;

    /**
     * Computes all there is of the {@code rank} largest, by Lanczos bidiagonalization with full reorthogonalization (Golub and Kahan
     * 1965; Golub, Luk and Overton 1981), which goes on until the vectors are singular vectors to 9 digits. A matrix of a flat spectrum
     * takes as many steps as its smaller side, and is then decomposed whole. Of values that are equal to the last digit, which trained
     * weights do not have, some may be passed over for smaller ones.
     *
     * @param name starts the random numbers: the same name gives the same bits
     * @throws IllegalArgumentException if the rank is larger than the matrix
     */
    static SingularValues of(LinearMap w, int rank, String name) {
        requireRank(w, rank);
        // As many steps as there are columns leave nothing, if there are not more of them than rows.
        if (w.columns() > w.rows()) {
            SingularValues turned = of(new Transposed(w), rank, name);
            return new SingularValues(turned.values, /* left= */ turned.right, /* right= */ turned.left).signed();
        }
        int most = w.columns();
        Bidiagonal lanczos = new Bidiagonal(w, new SplitMix64(0, name));
        for (int size = Math.min(most, 2 * rank + 16); ; size = Math.min(most, size + size / 2)) {
            lanczos.extend(size);
            SymmetricTridiagonal eigen = lanczos.eigen();
            if (size == most || lanczos.error(eigen, rank) <= TOLERANCE) {
                return of(w, lanczos.combine(eigen, rank)).signed();
            }
        }
    }

    /**
     * Computes them roughly, by multiplying random vectors with the matrix and its transpose a number of times (Halko, Martinsson and Tropp
     * 2011, algorithms 4.4 and 5.1), as {@code torch.svd_lowrank} does it with {@code q = rank}. Takes 2·iterations + 2 products of
     * {@code rank} vectors each.
     *
     * @param name starts the random numbers: the same name gives the same bits
     */
    static SingularValues roughly(LinearMap w, int rank, int iterations, String name) {
        requireRank(w, rank);
        SplitMix64 random = new SplitMix64(0, name);
        double[][] left = new double[rank][w.rows()];
        double[][] right = new double[rank][w.columns()];
        for (int i = 0; i < rank; i++) {
            random.gaussian(right[i]);
            w.times(right[i], left[i]);
        }
        Orthogonal.make(left, random);
        for (int iteration = 0; iteration < iterations; iteration++) {
            for (int i = 0; i < rank; i++) {
                w.transposedTimes(left[i], right[i]);
            }
            Orthogonal.make(right, random);
            for (int i = 0; i < rank; i++) {
                w.times(right[i], left[i]);
            }
            Orthogonal.make(left, random);
        }
        return of(new Projected(w, left), rank, name);
    }

    private static void requireRank(LinearMap w, int rank) {
        if (rank > Math.min(w.rows(), w.columns())) {
            throw new IllegalArgumentException("rank " + rank + " of a matrix of " + w.rows() + " by " + w.columns());
        }
    }

    private static SingularValues of(LinearMap w, double[][] right) {
        int rank = right.length;
        double[] values = new double[rank];
        double[][] left = new double[rank][w.rows()];
        for (int i = 0; i < rank; i++) {
            w.times(right[i], left[i]);
            values[i] = Math.sqrt(Orthogonal.dot(left[i], left[i]));
            boolean nothing = values[i] <= NOTHING * values[0];
            values[i] = nothing ? 0 : values[i];
            Orthogonal.scale(left[i], nothing ? 0 : 1 / values[i]);
            Orthogonal.scale(right[i], nothing ? 0 : 1);
        }
        return new SingularValues(values, left, right);
    }

    private SingularValues signed() {
        for (int i = 0; i < values.length; i++) {
            if (largest(left[i]) < 0) {
                Orthogonal.scale(left[i], -1);
                Orthogonal.scale(right[i], -1);
            }
        }
        return this;
    }

    private static double largest(double[] x) {
        double largest = 0;
        for (double each : x) {
            largest = Math.abs(each) > Math.abs(largest) ? each : largest;
        }
        return largest;
    }

    private record Transposed(LinearMap w) implements LinearMap {
        @Override
        public int rows() {
            return w.columns();
        }

        @Override
        public int columns() {
            return w.rows();
        }

        @Override
        public void times(double[] x, double[] out) {
            w.transposedTimes(x, out);
        }

        @Override
        public void transposedTimes(double[] y, double[] out) {
            w.times(y, out);
        }
    }

    /** Q·Qᵀ·W of orthonormal vectors Q. */
    private record Projected(LinearMap w, double[][] q) implements LinearMap {
        @Override
        public int rows() {
            return w.rows();
        }

        @Override
        public int columns() {
            return w.columns();
        }

        @Override
        public void times(double[] x, double[] out) {
            w.times(x, out);
            project(out, out);
        }

        @Override
        public void transposedTimes(double[] y, double[] out) {
            double[] projected = new double[y.length];
            project(y, projected);
            w.transposedTimes(projected, out);
        }

        private void project(double[] y, double[] out) {
            double[] parts = new double[q.length];
            for (int i = 0; i < q.length; i++) {
                parts[i] = Orthogonal.dot(q[i], y);
            }
            Arrays.fill(out, 0);
            for (int i = 0; i < q.length; i++) {
                Orthogonal.add(out, parts[i], q[i]);
            }
        }
    }
}
