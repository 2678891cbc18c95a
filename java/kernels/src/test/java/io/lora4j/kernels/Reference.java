package io.lora4j.kernels;

/** The operations once more, in plain Java and double, row-major arrays. */
final class Reference {
    private Reference() {}

    /** a [m, k] · b [k, n]. */
    static double[] multiply(double[] a, double[] b, int m, int k, int n) {
        double[] c = new double[m * n];
        for (int i = 0; i < m; i++) {
            for (int j = 0; j < n; j++) {
                for (int l = 0; l < k; l++) {
                    c[i * n + j] += a[i * k + l] * b[l * n + j];
                }
            }
        }
        return c;
    }

    static double[] transpose(double[] a, int rows, int cols) {
        double[] t = new double[a.length];
        for (int i = 0; i < rows; i++) {
            for (int j = 0; j < cols; j++) {
                t[j * rows + i] = a[i * cols + j];
            }
        }
        return t;
    }

    static double[] scale(double[] a, double factor) {
        double[] c = a.clone();
        for (int i = 0; i < c.length; i++) {
            c[i] *= factor;
        }
        return c;
    }

    static double[] add(double[] a, double[] b) {
        double[] c = a.clone();
        for (int i = 0; i < c.length; i++) {
            c[i] += b[i];
        }
        return c;
    }

    static double[] times(double[] a, double[] b) {
        double[] c = a.clone();
        for (int i = 0; i < c.length; i++) {
            c[i] *= b[i];
        }
        return c;
    }

    /** Philox4x32-10 (Salmon et al. 2011): four random words of a counter of four and a key of two. */
    static int[] philox(int[] counter, int key0, int key1) {
        int[] c = counter.clone();
        for (int round = 0; round < 10; round++) {
            long p0 = (c[0] & 0xffffffffL) * 0xD2511F53L;
            long p1 = (c[2] & 0xffffffffL) * 0xCD9E8D57L;
            c = new int[] {(int) (p1 >>> 32) ^ c[1] ^ key0, (int) p1, (int) (p0 >>> 32) ^ c[3] ^ key1, (int) p0};
            key0 += 0x9E3779B9;
            key1 += 0xBB67AE85;
        }
        return c;
    }

    /** The 16 random bits of a column, by the definition in lora4j.h. */
    static int dropoutBits(long seed, long step, int token, int module, int adapter, int column) {
        int t = column % 8 / 2;
        int[] counter = {token, 4 * (column / 32) + t, module | adapter << 16, (int) step};
        int word = philox(counter, (int) seed, (int) (seed >>> 32))[column % 32 / 8];
        return column % 2 == 0 ? word & 0xffff : word >>> 16;
    }

    /** Causal softmax attention of one sequence and one head in a window, 0 for none; rows of D; returns {o, p}. */
    static double[][] attention(double[][] q, double[][] k, double[][] v, double scale, int window) {
        int nq = q.length;
        int nk = k.length;
        int d = q[0].length;
        double[] o = new double[nq * d];
        double[] p = new double[nq * nk];
        for (int i = 0; i < nq; i++) {
            int seen = nk - nq + i + 1;
            int first = window == 0 ? 0 : Math.max(0, seen - window);
            double max = Double.NEGATIVE_INFINITY;
            for (int j = first; j < seen; j++) {
                for (int e = 0; e < d; e++) {
                    p[i * nk + j] += scale * q[i][e] * k[j][e];
                }
                max = Math.max(max, p[i * nk + j]);
            }
            double sum = 0;
            for (int j = first; j < seen; j++) {
                p[i * nk + j] = Math.exp(p[i * nk + j] - max);
                sum += p[i * nk + j];
            }
            for (int j = first; j < seen; j++) {
                p[i * nk + j] /= sum;
                for (int e = 0; e < d; e++) {
                    o[i * d + e] += p[i * nk + j] * v[j][e];
                }
            }
        }
        return new double[][] {o, p};
    }
}
