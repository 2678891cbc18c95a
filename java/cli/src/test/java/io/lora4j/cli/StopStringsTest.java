package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.formats.StreamDecoder;
import io.lora4j.formats.Tokenizer;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class StopStringsTest {
    @ParameterizedTest
    @CsvSource({
        "abc, xabcy, x, true",
        "abc, xaby, xaby, false",
        "aab, aaaab, aa, true",
        "b|ab, xab, x, true",
        "abcd|c, abce, ab, true",
        "x, '', '', false",
        "é猫, une é猫é, 'une ', true",
    })
    void endsBeforeTheFirstHoweverTheTextIsCut(String stops, String text, String shown, boolean found) {
        for (int piece = 1; piece <= Math.max(1, text.length()); piece++) {
            StopStrings strings = new StopStrings(List.of(stops.split("\\|")));
            StringBuilder all = new StringBuilder();
            for (int from = 0; from < text.length() && !strings.found(); from += piece) {
                all.append(strings.add(text.substring(from, Math.min(from + piece, text.length()))));
            }
            all.append(strings.finish());
            assertThat(all.toString()).as("pieces of " + piece).isEqualTo(shown);
            assertThat(strings.found()).isEqualTo(found);
            assertThat(strings.add("more")).isEqualTo(found ? "" : "more");
        }
    }

    @Test
    void holdsBackNoMoreThanMayBeAStop() {
        StopStrings strings = new StopStrings(List.of("\n\nUser:"));
        assertThat(strings.add("one\n")).isEqualTo("one");
        assertThat(strings.add("two")).isEqualTo("\ntwo");
        assertThat(new StopStrings(List.of()).add("all")).isEqualTo("all");
    }

    /** Every emoji and CJK sign is several tokens here; what is shown never has a part of one. */
    @ParameterizedTest
    @ValueSource(strings = {"a 🦊 and a 👩‍👩‍👧 met", "猫が好きです", "naïve 中文 🇯🇵!", "🦊"})
    void streamedTextIsWholeCodePoints(String text) throws Exception {
        try (Tokenizer tokenizer = Tokenizer.open(Cli.TINY)) {
            int[] ids = tokenizer.encode(text, false);
            assertThat(ids.length).isGreaterThan(text.codePointCount(0, text.length()) / 2);
            StreamDecoder decoder = new StreamDecoder(tokenizer, true);
            StopStrings stop = new StopStrings(List.of("🐺", "好き嫌い"));
            List<String> pieces = new ArrayList<>();
            for (int id : ids) {
                pieces.add(stop.add(decoder.add(id)));
            }
            pieces.add(stop.add(decoder.finish()) + stop.finish());
            assertThat(String.join("", pieces)).isEqualTo(text);
            for (String piece : pieces) {
                assertThat(piece.codePoints()).noneMatch(c -> c == 0xFFFD || (c >= 0xD800 && c <= 0xDFFF));
            }
        }
    }
}
