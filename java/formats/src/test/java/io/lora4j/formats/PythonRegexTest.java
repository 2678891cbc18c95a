package io.lora4j.formats;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class PythonRegexTest {

    @ParameterizedTest
    @CsvSource(
            delimiter = ' ',
            value = {
                "a{,2} aa true",
                "a{,2} aaa false",
                "a{x} a{x} true",
                "[]a]+ a]a true",
                "[[a] [ true",
                "[a&&b]+ a&b true",
                "(?P<n>q|k)_proj k_proj true",
                "x\\Z x true",
                "(?:a|b)+?c abc true",
                "\\x61\\u0062 ab true",
                "(?<!a)b b true",
                "a$ a true",
                "[^\\W\\d]+ abc true",
                "(a)\\1 aa true",
            })
    void readsPythonsSyntax(String pattern, String text, boolean matches) throws FormatException {
        assertThat(PythonRegex.compile(pattern, "t").fullMatch(text)).isEqualTo(matches);
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "\\Qa\\E",
                "\\p{L}",
                "(?P=n)",
                "(?(1)a|b)",
                "(?#c)",
                "\\h",
                "\\v",
                "\\07",
                "(?s)a",
                "[\\b]",
                "\\xZZ",
                "(?P<a_b>x)",
                "\\R",
                "(?<n>x)"
            })
    void refusesWhatJavaReadsDifferently(String pattern) {
        assertThatThrownBy(() -> PythonRegex.compile(pattern, "file: target_modules"))
                .isInstanceOf(FormatException.class)
                .hasMessageStartingWith("file: target_modules: regular expression")
                .hasMessageContaining("which has no equivalent in Java");
    }

    @ParameterizedTest
    @ValueSource(strings = {"(", "a)", "[a", "*", "a\\", "a{2,1}"})
    void refusesWhatIsInvalid(String pattern) {
        assertThatThrownBy(() -> PythonRegex.compile(pattern, "t")).isInstanceOf(FormatException.class);
    }

    @Test
    void givesUpWhereAMatchWouldTakeForEver() throws FormatException {
        PythonRegex regex = PythonRegex.compile("(a|aa)+b|((a|a)*)*c", "t");
        assertThatThrownBy(() -> regex.fullMatch("a".repeat(60))).hasMessageContaining("takes too long");
    }
}
