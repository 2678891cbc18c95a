package io.lora4j.cli;

import io.lora4j.train.data.Dataset;
import java.time.Duration;
import java.util.Locale;

/** How numbers are shown to people. */
final class Text {
    private Text() {}

    /** "1.23 GiB", "456 KiB", "12 B". */
    static String bytes(long bytes) {
        String[] units = {"B", "KiB", "MiB", "GiB", "TiB"};
        double value = bytes;
        int unit = 0;
        while (value >= 1024 && unit < units.length - 1) {
            value /= 1024;
            unit++;
        }
        return String.format(Locale.ROOT, unit == 0 || value >= 100 ? "%.0f %s" : "%.2f %s", value, units[unit]);
    }

    /** "1:02:03" or "2:03". */
    static String time(Duration time) {
        long s = Math.max(0, time.toSeconds());
        return s >= 3600
                ? String.format(Locale.ROOT, "%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60)
                : String.format(Locale.ROOT, "%d:%02d", s / 60, s % 60);
    }

    /** Four significant digits, "1.234e-05" for small numbers. */
    static String number(double value) {
        return String.format(Locale.ROOT, value != 0 && Math.abs(value) < 1e-3 ? "%.3e" : "%.4f", value);
    }

    /** Says how many rows of a data set were not taken as they are. */
    static String losses(Dataset data) {
        return data.rowsCut() + " rows cut to max_length, " + data.rowsDropped() + " dropped without targets, "
                + data.rowsTooLong() + " dropped as too long"
                + (data.rowsSplit() > 0 ? ", " + data.rowsSplit() + " split" : "");
    }
}
