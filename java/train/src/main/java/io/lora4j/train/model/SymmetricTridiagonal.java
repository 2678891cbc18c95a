package io.lora4j.train.model;

import java.util.Comparator;
import java.util.stream.IntStream;

/**
 * The eigenvalues and eigenvectors of a symmetric tridiagonal matrix, largest first, by the implicit QL iteration with Wilkinson's shift
 * (Bowdler, Martin, Reinsch and Wilkinson 1968).
 */
final class SymmetricTridiagonal {
    private static final int MOST_ITERATIONS = 100;

    private final double[] d;
    private final double[] e;
    /** A row for each eigenvector. */
    private final double[][] vectors;

    private final int[] order;

    private SymmetricTridiagonal(double[] d, double[] e) {
        int m = d.length;
        this.d = d;
        this.e = e;
        this.vectors = new double[m][m];
        for (int i = 0; i < m; i++) {
            vectors[i][i] = 1;
        }
        for (int l = 0; l < m; l++) {
            isolate(l);
        }
        this.order = IntStream.range(0, m)
                .boxed()
                .sorted(Comparator.comparingDouble((Integer i) -> d[i]).reversed())
                .mapToInt(Integer::intValue)
                .toArray();
    }

    /**
     * Decomposes a matrix.
     *
     * @param diagonal [m]; becomes the eigenvalues in no order
     * @param beside e[i] is between i and i + 1; the last one is not used. Is overwritten
     */
    static SymmetricTridiagonal decompose(double[] diagonal, double[] beside) {
        return new SymmetricTridiagonal(diagonal, beside);
    }

    double value(int i) {
        return d[order[i]];
    }

    /** Returns an eigenvector, of length 1; not a copy. */
    double[] vector(int i) {
        return vectors[order[i]];
    }

    /** Turns the matrix until d[l] stands alone. */
    private void isolate(int l) {
        for (int iteration = 0; ; iteration++) {
            int end = end(l);
            if (end == l) {
                return;
            }
            if (iteration == MOST_ITERATIONS) {
                throw new ArithmeticException("the eigenvalues of a tridiagonal matrix do not converge");
            }
            turn(l, end);
        }
    }

    /** Returns where the block that begins at l ends: at the first number beside the diagonal that is nothing. */
    private int end(int l) {
        for (int i = l; i < d.length - 1; i++) {
            double both = Math.abs(d[i]) + Math.abs(d[i + 1]);
            if (both + Math.abs(e[i]) == both) {
                return i;
            }
        }
        return d.length - 1;
    }

    /** A sweep of rotations from the block's end up to its beginning. */
    private void turn(int l, int end) {
        double slope = (d[l + 1] - d[l]) / (2 * e[l]);
        double root = Math.sqrt(slope * slope + 1);
        double g = d[end] - d[l] + e[l] / (slope + Math.copySign(root, slope));
        double sine = 1;
        double cosine = 1;
        double taken = 0;
        for (int i = end - 1; i >= l; i--) {
            double f = sine * e[i];
            double b = cosine * e[i];
            double r = Math.sqrt(f * f + g * g);
            e[i + 1] = r;
            if (r == 0) { // The block falls in two.
                d[i + 1] -= taken;
                e[end] = 0;
                return;
            }
            sine = f / r;
            cosine = g / r;
            g = d[i + 1] - taken;
            double mixed = (d[i] - g) * sine + 2 * cosine * b;
            taken = sine * mixed;
            d[i + 1] = g + taken;
            g = cosine * mixed - b;
            rotate(vectors[i], vectors[i + 1], cosine, sine);
        }
        d[l] -= taken;
        e[l] = g;
        e[end] = 0;
    }

    private static void rotate(double[] x, double[] y, double cosine, double sine) {
        for (int k = 0; k < x.length; k++) {
            double old = y[k];
            y[k] = sine * x[k] + cosine * old;
            x[k] = cosine * x[k] - sine * old;
        }
    }
}
