package io.lora4j.train.data;

/**
 * The order of the rows in an epoch: a function of the seed and the epoch alone, whatever the batch size, the packing or the
 * number of threads.
 *
 * <p>The order is Fisher and Yates' shuffle of 0 … n − 1, from the last place down: place i is swapped with a place drawn
 * from 0 … i. The numbers come from SplitMix64 (Steele, Lea and Flood 2014), whose state starts at
 * {@code mix(seed) + mix(epoch + 1)}; a draw below a bound b takes 63-bit numbers, and those at or above the largest multiple
 * of b are thrown away, so that every order is equally likely.
 */
public final class RowOrder {
    private static final long GAMMA = 0x9E3779B97F4A7C15L;

    private long state;

    private RowOrder(long state) {
        this.state = state;
    }

    /**
     * Returns the order of an epoch: element i is the row at place i.
     *
     * @param rows number of rows
     * @param seed the run's seed
     * @param epoch the epoch, 0 for the first
     */
    public static int[] of(int rows, long seed, int epoch) {
        RowOrder random = new RowOrder(mix(seed) + mix(epoch + 1L));
        int[] order = new int[rows];
        for (int i = 0; i < rows; i++) {
            order[i] = i;
        }
        for (int i = rows - 1; i > 0; i--) {
            int j = random.below(i + 1);
            int swapped = order[i];
            order[i] = order[j];
            order[j] = swapped;
        }
        return order;
    }

    private int below(int bound) {
        long limit = Long.MAX_VALUE - Long.MAX_VALUE % bound;
        long draw = next();
        while (draw >= limit) {
            draw = next();
        }
        return (int) (draw % bound);
    }

    private long next() {
        state += GAMMA;
        return mix(state) >>> 1;
    }

    private static long mix(long z) {
        long a = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        long b = (a ^ (a >>> 27)) * 0x94D049BB133111EBL;
        return b ^ (b >>> 31);
    }
}
