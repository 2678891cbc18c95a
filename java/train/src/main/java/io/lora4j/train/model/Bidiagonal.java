package io.lora4j.train.model;

import java.util.ArrayList;
import java.util.List;

/**
 * A matrix as seen from a few of its directions: W·V = U·B with orthonormal U and V and an upper bidiagonal B, a step longer with every
 * product (Golub and Kahan 1965). Rounding takes the vectors' orthogonality away, so it is put back at every step. Where a product gives
 * nothing new, a random direction goes on.
 */
final class Bidiagonal {
    private final LinearMap w;
    private final SplitMix64 random;
    private final List<double[]> left = new ArrayList<>();
    private final List<double[]> right = new ArrayList<>();
    private final List<Double> diagonal = new ArrayList<>();
    /** Beside the diagonal: the one at i is between step i and step i + 1. */
    private final List<Double> above = new ArrayList<>();

    private double scale;

    Bidiagonal(LinearMap w, SplitMix64 random) {
        this.w = w;
        this.random = random;
        double[] first = new double[w.columns()];
        Orthogonal.append(right, first, 1, random);
        right.add(first);
    }

    /** Goes on to a number of steps, which is at most the smaller side of the matrix. */
    void extend(int steps) {
        for (int j = left.size(); j < steps; j++) {
            double[] u = new double[w.rows()];
            w.times(right.get(j), u);
            scale = Math.max(scale, Math.sqrt(Orthogonal.dot(u, u)));
            diagonal.add(Orthogonal.append(left, u, scale, random));
            left.add(u);
            double[] v = new double[w.columns()];
            w.transposedTimes(u, v);
            above.add(Orthogonal.append(right, v, scale, random));
            right.add(v);
        }
    }

    /** Returns the eigenvalues σ² and eigenvectors of BᵀB. */
    SymmetricTridiagonal eigen() {
        int m = left.size();
        double[] d = new double[m];
        double[] e = new double[m];
        for (int j = 0; j < m; j++) {
            double before = j == 0 ? 0 : above.get(j - 1);
            d[j] = diagonal.get(j) * diagonal.get(j) + before * before;
            e[j] = j == m - 1 ? 0 : diagonal.get(j) * above.get(j);
        }
        return SymmetricTridiagonal.decompose(d, e);
    }

    /** Returns how far the first pairs are from singular vectors, ‖Wᵀu − σv‖ at most, over the largest σ. */
    double error(SymmetricTridiagonal eigen, int count) {
        int last = left.size() - 1;
        double largest = Math.sqrt(Math.max(0, eigen.value(0)));
        double error = 0;
        for (int i = 0; i < count; i++) {
            double sigma = Math.sqrt(Math.max(0, eigen.value(i)));
            // The last number of u = B·v/σ.
            double u = sigma == 0 ? 1 : diagonal.get(last) * eigen.vector(i)[last] / sigma;
            error = Math.max(error, Math.abs(above.get(last) * u));
        }
        return largest == 0 ? error : error / largest;
    }

    /** Returns the first right singular vectors of W. */
    double[][] combine(SymmetricTridiagonal eigen, int count) {
        double[][] vectors = new double[count][w.columns()];
        for (int i = 0; i < count; i++) {
            double[] weights = eigen.vector(i);
            for (int j = 0; j < weights.length; j++) {
                Orthogonal.add(vectors[i], weights[j], right.get(j));
            }
        }
        return vectors;
    }
}
