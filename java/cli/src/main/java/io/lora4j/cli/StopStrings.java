package io.lora4j.cli;

import java.util.List;

/**
 * Ends a streamed text before the first of some strings. Text that may be the beginning of one is held back until it is clear.
 * Not thread-safe.
 */
final class StopStrings {
    private final List<String> stops;
    private final StringBuilder pending = new StringBuilder();
    private boolean found;

    StopStrings(List<String> stops) {
        this.stops = stops;
    }

    /** Takes the next piece and returns what can be shown. */
    String add(String piece) {
        if (found) {
            return "";
        }
        pending.append(piece);
        int first = -1;
        for (String stop : stops) {
            int at = pending.indexOf(stop);
            first = at >= 0 && (first < 0 || at < first) ? at : first;
        }
        if (first >= 0) {
            found = true;
            return take(first);
        }
        return take(pending.length() - heldBack());
    }

    /** Returns the text that was held back for nothing, at the end. */
    String finish() {
        return found ? "" : take(pending.length());
    }

    boolean found() {
        return found;
    }

    /** Length of the longest end of the pending text that begins a stop string. */
    private int heldBack() {
        int longest = 0;
        for (String stop : stops) {
            for (int n = Math.min(stop.length() - 1, pending.length()); n > longest; n--) {
                if (stop.startsWith(pending.substring(pending.length() - n))) {
                    longest = n;
                }
            }
        }
        return longest;
    }

    private String take(int length) {
        String text = pending.substring(0, length);
        pending.delete(0, length);
        return text;
    }
}
