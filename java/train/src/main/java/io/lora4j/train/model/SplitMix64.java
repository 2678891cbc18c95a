package io.lora4j.train.model;

import java.nio.charset.StandardCharsets;

/**
 * SplitMix64 (Steele, Lea and Flood 2014): a stream of 64 random bits a draw that is ours, so that an initialisation has the same
 * bits on every Java version. A stream belongs to a seed and a name: its start is the FNV-1a hash of the name's UTF-8 bytes, mixed
 * with the seed.
 */
final class SplitMix64 {
    private long state;

    SplitMix64(long seed, String name) {
        long hash = 0xcbf29ce484222325L;
        for (byte b : name.getBytes(StandardCharsets.UTF_8)) {
            hash = (hash ^ (b & 0xff)) * 0x100000001b3L;
        }
        state = mix(seed) ^ hash;
    }

    long next() {
        state += 0x9e3779b97f4a7c15L;
        return mix(state);
    }

    /** Returns a number from the open interval (−bound, bound), one of 2²⁴ evenly spaced ones. */
    float uniform(double bound) {
        double unit = ((next() >>> 40) + 0.5) * 0x1p-24;
        return (float) ((2 * unit - 1) * bound);
    }

    /** Fills with numbers that are normally distributed but for their tails: sums of twelve uniform ones, which take no logarithm. */
    void gaussian(double[] out) {
        for (int i = 0; i < out.length; i++) {
            double sum = 0;
            for (int k = 0; k < 12; k++) {
                sum += (next() >>> 11) * 0x1p-53;
            }
            out[i] = sum - 6;
        }
    }

    private static long mix(long z) {
        z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
        z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
        return z ^ (z >>> 31);
    }
}
