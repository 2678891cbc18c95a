package io.lora4j.train.data;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.IntStream;

/**
 * Puts rows into sequences of a limited length by best fit decreasing (TRL's {@code bfd}): the longest row first, each into
 * the fullest sequence that still has room for it.
 *
 * <p>Rows of one length are interchangeable, so the number of sequences and their lengths do not depend on the order of the
 * rows: every epoch has the same number of steps.
 */
final class Packing {
    private Packing() {}

    /**
     * Packs rows.
     *
     * @param lengths length of the row at each place of the epoch's order
     * @param budget the longest a sequence may be
     * @return the places of each sequence in ascending order, sequences by their first place
     */
    static List<int[]> pack(int[] lengths, int budget) {
        List<Integer> longestFirst = IntStream.range(0, lengths.length)
                .boxed()
                .sorted(Comparator.comparingInt(place -> -lengths[place]))
                .toList();
        List<List<Integer>> sequences = new ArrayList<>();
        TreeMap<Integer, Deque<List<Integer>>> byRoom = new TreeMap<>();
        for (int place : longestFirst) {
            int length = lengths[place];
            if (length > budget) {
                throw new IllegalArgumentException("a row of " + length + " tokens does not fit into " + budget);
            }
            Map.Entry<Integer, Deque<List<Integer>>> fit = byRoom.ceilingEntry(length);
            int room = fit == null ? budget : fit.getKey();
            List<Integer> sequence;
            if (fit == null) {
                sequence = new ArrayList<>();
                sequences.add(sequence);
            } else {
                sequence = fit.getValue().removeFirst();
                if (fit.getValue().isEmpty()) {
                    byRoom.remove(room);
                }
            }
            sequence.add(place);
            byRoom.computeIfAbsent(room - length, r -> new ArrayDeque<>()).addLast(sequence);
        }
        return sequences.stream()
                .map(s -> s.stream().mapToInt(Integer::intValue).sorted().toArray())
                .sorted(Comparator.comparingInt(s -> s[0]))
                .toList();
    }

    /** Returns each row as a sequence of its own. */
    static List<int[]> apart(int rows) {
        return IntStream.range(0, rows).mapToObj(place -> new int[] {place}).toList();
    }
}
