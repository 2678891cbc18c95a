package io.lora4j.train.model;

import java.util.List;

/** Vectors made orthogonal and of length 1, in float64. */
final class Orthogonal {
    /** What is left of a vector after others were taken out of it is rounding below this part of it. */
    private static final double ROUNDING = 1e-12;

    private Orthogonal() {}

    static double dot(double[] x, double[] y) {
        double even = 0;
        double odd = 0;
        int last = x.length - 1;
        for (int i = 0; i < last; i += 2) {
            even += x[i] * y[i];
            odd += x[i + 1] * y[i + 1];
        }
        return x.length % 2 == 0 ? even + odd : even + odd + x[last] * y[last];
    }

    static void add(double[] x, double factor, double[] y) {
        for (int i = 0; i < x.length; i++) {
            x[i] += factor * y[i];
        }
    }

    static void scale(double[] x, double factor) {
        for (int i = 0; i < x.length; i++) {
            x[i] = factor == 0 ? 0 : x[i] * factor;
        }
    }

    /**
     * Takes the others out of a vector, twice as once is not exact, and makes what is left of length 1: a random direction if that is
     * nothing.
     *
     * @param scale what the vector's length is to be judged by
     * @return the length of what was left, 0 if nothing
     */
    static double append(List<double[]> others, double[] x, double scale, SplitMix64 random) {
        double length = reduce(others, x);
        if (length > ROUNDING * scale) {
            scale(x, 1 / length);
            return length;
        }
        if (others.size() < x.length) {
            double left;
            do {
                random.gaussian(x);
                left = reduce(others, x) / Math.sqrt(x.length);
            } while (left <= ROUNDING);
            scale(x, 1 / (left * Math.sqrt(x.length)));
        }
        return 0;
    }

    private static double reduce(List<double[]> others, double[] x) {
        for (int pass = 0; pass < 2; pass++) {
            for (double[] other : others) {
                add(x, -dot(other, x), other);
            }
        }
        return Math.sqrt(dot(x, x));
    }

    /** Makes vectors orthonormal, one after the other. */
    static void make(double[][] vectors, SplitMix64 random) {
        double scale = 0;
        for (double[] vector : vectors) {
            scale = Math.max(scale, Math.sqrt(dot(vector, vector)));
        }
        List<double[]> all = List.of(vectors);
        for (int i = 0; i < vectors.length; i++) {
            append(all.subList(0, i), vectors[i], scale, random);
        }
    }
}
